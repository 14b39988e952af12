//go:build race

package yonder_test

const raceEnabled = true
