//go:build !race

package schedules

const race = false
