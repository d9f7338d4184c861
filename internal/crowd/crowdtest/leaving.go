// Package crowdtest has what tests of shared work have in common.
package crowdtest

import (
	"context"
	"time"
)

// Leaving makes, by name, the contexts of callers who leave a second after they came, in each way in which one can.
var Leaving = map[string]func(context.Context) (context.Context, context.CancelFunc){
	"he hung up": func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, cancel)
		return ctx, cancel
	},
	"his time is over": func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, time.Second)
	},
}
