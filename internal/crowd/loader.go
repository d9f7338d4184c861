package crowd

import "context"

// mostWaiting bounds the loads of a Loader that wait.
const mostWaiting = 32

// Loader answers single questions with loads of several. It is safe for concurrent use.
type Loader[K comparable, V any] struct {
	load    func(ctx context.Context, keys []K) (map[K]V, error)
	most    int
	batches *Batches[loaded[K, V]]
}

// loaded is a load that several wait for.
type loaded[K comparable, V any] struct {
	keys []K
	has  map[K]bool
	got  map[K]V
}

// New makes a Loader of at most so many loads at once, each of at most so many different keys. What load does not give is not
// there. It must end with its context.
func New[K comparable, V any](atOnce, most int, load func(ctx context.Context, keys []K) (map[K]V, error)) *Loader[K, V] {
	return &Loader[K, V]{load: load, most: most, batches: NewBatches[loaded[K, V]](atOnce, mostWaiting, "too many wait for the same")}
}

// Get gives what there is for a key; found is false where there is nothing.
func (l *Loader[K, V]) Get(ctx context.Context, k K) (v V, found bool, err error) {
	b, err := l.batches.Do(ctx, func(b *loaded[K, V]) bool {
		switch {
		case b.has[k]:
		case len(b.keys) >= l.most:
			return false
		case b.has == nil:
			b.keys, b.has = []K{k}, map[K]bool{k: true}
		default:
			b.keys, b.has[k] = append(b.keys, k), true
		}
		return true
	}, func(ctx context.Context, b *loaded[K, V]) (err error) {
		b.got, err = l.load(ctx, b.keys)
		return err
	})
	if b == nil {
		return v, false, err
	}
	v, found = b.got[k]
	return v, found, err
}
