package embedded

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// filled sets every field of a request, lists and tagged fields included.
func filled(random *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f, name := v.Field(i), v.Type().Field(i).Name
			if !f.CanSet() || name == "UnknownTags" || name == "Version" {
				continue
			}
			filled(random, f)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(make([]byte, random.IntN(300)))
			return
		}
		n := random.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			if d, ok := v.Index(i).Addr().Interface().(interface{ Default() }); ok {
				d.Default()
			}
			filled(random, v.Index(i))
		}
	case reflect.Pointer:
		if random.IntN(3) == 0 {
			v.SetZero()
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		filled(random, v.Elem())
	case reflect.String:
		v.SetString(fmt.Sprintf("%*d", random.IntN(200), 7))
	case reflect.Bool:
		v.SetBool(random.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(random.IntN(100)))
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(random.IntN(256)))
		}
	}
}

func TestWalk_TakesEveryRequestOfEveryVersionAndNothingThatIsCut(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pairs := 0
	for key := range walks {
		most := kmsg.RequestForKey(int16(key)).MaxVersion()
		for version := range most + 1 {
			pairs++
			for range 50 {
				request := kmsg.RequestForKey(int16(key))
				if d, ok := request.(interface{ Default() }); ok {
					d.Default()
				}
				request.SetVersion(version)
				filled(random, reflect.ValueOf(request).Elem())
				body := request.AppendTo(nil)
				again := kmsg.RequestForKey(int16(key))
				again.SetVersion(version)
				if err := again.ReadFrom(body); err != nil {
					t.Fatalf("%s version %d cannot be read by its own decoder: %v", key.Name(), version, err)
				}
				if whole, ok := walked(again, body); !whole || !ok {
					t.Fatalf("%s version %d is not walked: %x", key.Name(), version, body)
				}
				if len(body) > 0 {
					if whole, _ := walked(again, body[:random.IntN(len(body))]); whole {
						t.Fatalf("%s version %d is taken though it is cut", key.Name(), version)
					}
				}
			}
		}
	}
	if pairs < 100 {
		t.Errorf("%d kinds and versions were tried", pairs)
	}
}

// A count that promises more than there is ends the walk: it is neither believed nor counted down.
func TestWalk_RefusesCountsThatPromiseMoreThanThereIs(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	for key := range walks {
		for version := range kmsg.RequestForKey(int16(key)).MaxVersion() + 1 {
			request := kmsg.RequestForKey(int16(key))
			request.SetVersion(version)
			filled(random, reflect.ValueOf(request).Elem())
			body := request.AppendTo(nil)
			again := kmsg.RequestForKey(int16(key))
			again.SetVersion(version)
			for at := range len(body) + 1 {
				bent := append(append([]byte{}, body[:at]...), huge...)
				if whole, _ := walked(again, bent); !whole {
					continue
				}
				// The bytes are no count there. The decoder may refuse them, and must end.
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					_ = again.ReadFrom(bent) // the verdict does not matter
				}()
				select {
				case <-ended:
				case <-time.After(20 * time.Second):
					t.Fatalf("%s version %d: %x keeps the decoder busy", key.Name(), version, bent)
				}
			}
		}
	}
}
