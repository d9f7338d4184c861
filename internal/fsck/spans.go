package fsck

import "slices"

// spans is a set of offsets that mostly follow one another: it grows with its gaps.
type spans struct{ list []span } // sorted, apart from one another

type span struct{ from, to int64 } // to does not belong to it

// add adds an offset and tells whether it was there.
func (s *spans) add(n int64) (again bool) {
	i, there := s.find(n)
	switch {
	case there:
		return true
	case i > 0 && s.list[i-1].to == n:
		s.list[i-1].to = n + 1
		if i < len(s.list) && s.list[i].from == n+1 {
			s.list[i-1].to = s.list[i].to
			s.list = slices.Delete(s.list, i, i+1)
		}
	case i < len(s.list) && s.list[i].from == n+1:
		s.list[i].from = n
	default:
		s.list = slices.Insert(s.list, i, span{n, n + 1})
	}
	return false
}

// addSpan adds offsets and tells whether one of them was there.
func (s *spans) addSpan(v span) (again bool) {
	if v.to == v.from+1 {
		return s.add(v.from)
	}
	again = s.overlaps(v)
	i, _ := s.find(v.from)
	if i > 0 && s.list[i-1].to == v.from {
		i--
	}
	n := i
	for ; n < len(s.list) && s.list[n].from <= v.to; n++ {
		v.from, v.to = min(v.from, s.list[n].from), max(v.to, s.list[n].to)
	}
	s.list = slices.Replace(s.list, i, n, v)
	return again
}

// overlaps tells whether one of some offsets is there.
func (s *spans) overlaps(v span) bool {
	i, _ := s.find(v.from)
	return i < len(s.list) && s.list[i].from < v.to
}

// has tells whether an offset is there.
func (s *spans) has(n int64) bool {
	_, there := s.find(n)
	return there
}

// find gives the place of the span that has an offset, or before which it would stand.
func (s *spans) find(n int64) (int, bool) {
	i, _ := slices.BinarySearchFunc(s.list, n, func(v span, n int64) int {
		if v.to <= n {
			return -1
		}
		return 1
	})
	return i, i < len(s.list) && s.list[i].from <= n
}

// first gives the lowest offset; false where there is none.
func (s *spans) first() (int64, bool) {
	if len(s.list) == 0 {
		return 0, false
	}
	return s.list[0].from, true
}
