//go:build race

package schedules

const race = true
