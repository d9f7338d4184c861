package embedded

import (
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// walk goes through the body of a request without taking memory for what its counts promise. The decoders of kmsg trust
// counts: a request of twenty bytes that promises four billion tagged fields keeps one busy for a minute. So a body is
// walked first, and only what is whole is decoded.
type walk struct {
	kbin.Reader
	version  int16
	flexible bool
	bad      bool
}

// walked reports whether a body is whole, for the kinds in walks; ok is false for the others.
func walked(request kmsg.Request, body []byte) (whole, ok bool) {
	fields, ok := walks[kmsg.Key(request.Key())]
	if !ok {
		return false, false
	}
	w := &walk{Reader: kbin.Reader{Src: body}, version: request.GetVersion(), flexible: request.IsFlexible()}
	fields(w)
	w.tagged(func(tag uint32, field *walk) {
		if kmsg.Key(request.Key()) == kmsg.Fetch && tag == 1 { // the state of a replica
			field.skip(4 + 8)
			field.tags()
		}
	})
	return !w.bad && w.Ok() && len(w.Src) == 0, true
}

// from reports whether the version has a field that came with version v.
func (w *walk) from(v int16) bool { return w.version >= v }

func (w *walk) skip(n int) { w.Span(n) }

// tags takes the tagged fields at the end of a structure.
func (w *walk) tags() { w.tagged(func(uint32, *walk) {}) }

// tagged takes the tagged fields at the end of a structure. A field that is a structure itself is walked by inner.
func (w *walk) tagged(inner func(tag uint32, field *walk)) {
	if !w.flexible {
		return
	}
	n := w.Uvarint()
	if int64(n) > int64(len(w.Src)) {
		w.bad = true
	}
	for ; n > 0 && !w.bad && w.Ok(); n-- {
		tag := w.Uvarint()
		field := &walk{Reader: kbin.Reader{Src: w.Span(int(w.Uvarint()))}, version: w.version, flexible: true}
		inner(tag, field)
		w.bad = w.bad || field.bad || !field.Ok()
	}
}

func (w *walk) text() {
	if w.flexible {
		w.CompactNullableString()
	} else {
		w.NullableString()
	}
}

func (w *walk) blob() {
	if w.flexible {
		w.CompactNullableBytes()
	} else {
		w.NullableBytes()
	}
}

// each takes an array, which may be null. Every element has at least one byte.
func (w *walk) each(element func()) {
	var n int32
	if w.flexible {
		n = w.CompactArrayLen()
	} else {
		n = w.ArrayLen()
	}
	if int(n) > len(w.Src) {
		w.bad = true
	}
	for ; n > 0 && !w.bad && w.Ok(); n-- {
		element()
	}
}

func (w *walk) texts()   { w.each(w.text) }
func (w *walk) numbers() { w.each(func() { w.skip(4) }) }

// topic takes the name of a topic, or its id from a version on.
func (w *walk) topic(id int16) {
	if w.from(id) {
		w.skip(16)
	} else {
		w.text()
	}
}

// never is a version that no field comes with.
const never = int16(1<<15 - 1)

// walks has the fields of each kind of request that a connection without the secret may use, but for the tagged ones at the
// end. Kinds that are not here are offered in versions without tagged fields only.
var walks = map[kmsg.Key]func(*walk){
	kmsg.Fetch: func(w *walk) {
		if !w.from(15) {
			w.skip(4) // the replica
		}
		w.skip(4 + 4)
		if w.from(3) {
			w.skip(4)
		}
		if w.from(4) {
			w.skip(1)
		}
		if w.from(7) {
			w.skip(4 + 4) // the session
		}
		w.each(func() {
			w.topic(13)
			w.each(func() {
				w.skip(4)
				if w.from(9) {
					w.skip(4)
				}
				w.skip(8)
				if w.from(12) {
					w.skip(4)
				}
				if w.from(5) {
					w.skip(8)
				}
				w.skip(4)
				w.tags()
			})
			w.tags()
		})
		if w.from(7) {
			w.each(func() { w.topic(13); w.numbers(); w.tags() })
		}
		if w.from(11) {
			w.text()
		}
	},
	kmsg.ListOffsets: func(w *walk) {
		w.skip(4)
		if w.from(2) {
			w.skip(1)
		}
		w.each(func() {
			w.text()
			w.each(func() {
				w.skip(4)
				if w.from(4) {
					w.skip(4)
				}
				w.skip(8)
				if !w.from(1) {
					w.skip(4)
				}
				w.tags()
			})
			w.tags()
		})
		if w.from(10) {
			w.skip(4)
		}
	},
	kmsg.Metadata: func(w *walk) {
		w.each(func() {
			if w.from(10) {
				w.skip(16)
			}
			w.text()
			w.tags()
		})
		if w.from(4) {
			w.skip(1)
		}
		if w.from(8) && !w.from(11) {
			w.skip(1)
		}
		if w.from(8) {
			w.skip(1)
		}
	},
	kmsg.OffsetCommit: func(w *walk) {
		w.text()
		if w.from(1) {
			w.skip(4)
			w.text()
		}
		if w.from(7) {
			w.text()
		}
		if w.from(2) && !w.from(5) {
			w.skip(8)
		}
		w.each(func() {
			w.topic(10)
			w.each(func() {
				w.skip(4 + 8)
				if w.version == 1 {
					w.skip(8)
				}
				if w.from(6) {
					w.skip(4)
				}
				w.text()
				w.tags()
			})
			w.tags()
		})
	},
	kmsg.OffsetFetch: func(w *walk) {
		topics := func(id int16) { w.each(func() { w.topic(id); w.numbers(); w.tags() }) }
		if w.from(8) {
			w.each(func() {
				w.text()
				if w.from(9) {
					w.text()
					w.skip(4)
				}
				topics(10)
				w.tags()
			})
		} else {
			w.text()
			topics(never)
		}
		if w.from(7) {
			w.skip(1)
		}
	},
	kmsg.FindCoordinator: func(w *walk) {
		if !w.from(4) {
			w.text()
		}
		if w.from(1) {
			w.skip(1)
		}
		if w.from(4) {
			w.texts()
		}
	},
	kmsg.JoinGroup: func(w *walk) {
		w.text()
		w.skip(4)
		if w.from(1) {
			w.skip(4)
		}
		w.text()
		if w.from(5) {
			w.text()
		}
		w.text()
		w.each(func() { w.text(); w.blob(); w.tags() })
		if w.from(8) {
			w.text()
		}
	},
	kmsg.Heartbeat: func(w *walk) {
		w.text()
		w.skip(4)
		w.text()
		if w.from(3) {
			w.text()
		}
	},
	kmsg.LeaveGroup: func(w *walk) {
		w.text()
		if !w.from(3) {
			w.text()
			return
		}
		w.each(func() {
			w.text()
			w.text()
			if w.from(5) {
				w.text()
			}
			w.tags()
		})
	},
	kmsg.SyncGroup: func(w *walk) {
		w.text()
		w.skip(4)
		w.text()
		if w.from(3) {
			w.text()
		}
		if w.from(5) {
			w.text()
			w.text()
		}
		w.each(func() { w.text(); w.blob(); w.tags() })
	},
	kmsg.DescribeGroups: func(w *walk) {
		w.texts()
		if w.from(3) {
			w.skip(1)
		}
	},
	kmsg.ListGroups: func(w *walk) {
		if w.from(4) {
			w.texts()
		}
		if w.from(5) {
			w.texts()
		}
	},
	kmsg.SASLHandshake: func(w *walk) { w.text() },
	kmsg.ApiVersions: func(w *walk) {
		if w.from(3) {
			w.text()
			w.text()
		}
		if w.from(5) {
			w.text()
			w.skip(4)
		}
	},
	kmsg.InitProducerID: func(w *walk) {
		w.text()
		w.skip(4)
		if w.from(3) {
			w.skip(8 + 2)
		}
		if w.from(6) {
			w.skip(1 + 1)
		}
	},
	kmsg.OffsetForLeaderEpoch: func(w *walk) {
		if w.from(3) {
			w.skip(4)
		}
		w.each(func() {
			w.text()
			w.each(func() {
				w.skip(4)
				if w.from(2) {
					w.skip(4)
				}
				w.skip(4)
				w.tags()
			})
			w.tags()
		})
	},
	kmsg.DescribeConfigs: func(w *walk) {
		w.each(func() { w.skip(1); w.text(); w.texts(); w.tags() })
		if w.from(1) {
			w.skip(1)
		}
		if w.from(3) {
			w.skip(1)
		}
	},
	kmsg.SASLAuthenticate: func(w *walk) { w.blob() },
	kmsg.DeleteGroups:     func(w *walk) { w.texts() },
	kmsg.OffsetDelete:     func(w *walk) { w.text(); w.each(func() { w.text(); w.numbers() }) },
	kmsg.ConsumerGroupHeartbeat: func(w *walk) {
		w.text()
		w.text()
		w.skip(4)
		w.text()
		w.text()
		w.skip(4)
		w.texts()
		if w.from(1) {
			w.text()
		}
		w.text()
		w.each(func() { w.skip(16); w.numbers(); w.tags() })
	},
	kmsg.ConsumerGroupDescribe: func(w *walk) { w.texts(); w.skip(1) },
	kmsg.Produce: func(w *walk) {
		if w.from(3) {
			w.text()
		}
		w.skip(2 + 4)
		topics := 0
		w.each(func() {
			w.topic(13)
			partitions := 0
			w.each(func() {
				w.skip(4)
				w.blob()
				w.tags()
				if partitions++; partitions > maxProduced {
					w.bad = true
				}
			})
			w.tags()
			if topics++; topics > maxProduced {
				w.bad = true
			}
		})
	},
}

// plain returns the highest version of a kind without tagged fields, or -1.
func plain(key, least, most int16) int16 {
	for v := most; v >= least; v-- {
		request := kmsg.RequestForKey(key)
		request.SetVersion(v)
		if !request.IsFlexible() {
			return v
		}
	}
	return -1
}
