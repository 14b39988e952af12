//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// measureBuild builds an entrant's hello program, stripped: once from nothing, the standard
// library included, and once more after a change of its main package, as a programmer does.
func measureBuild(ctx context.Context, t *trial) (s sample, err error) {
	root, err := workspace(ctx)
	if err != nil {
		return s, err
	}
	dir, err := os.MkdirTemp("", "bench-build-")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	out := filepath.Join(dir, "hello")
	build := func(more ...string) (time.Duration, error) {
		args := append([]string{"build", "-tags", "peers", "-trimpath", "-ldflags", "-s -w", "-o", out}, more...)
		cmd := exec.CommandContext(ctx, "go", append(args, t.e.hello)...)
		cmd.Dir = root
		cmd.Env = append(cmd.Environ(), "GOCACHE="+filepath.Join(dir, "cache"), "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0")
		start := time.Now()
		if text, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("go build %s: %w\n%s", t.e.hello, err, text)
		}
		return time.Since(start), nil
	}
	s.Build = new(built)
	if s.Build.Cold, err = build(); err != nil {
		return s, err
	}
	change := filepath.Join(dir, "change.go")
	overlay, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(root, t.e.hello, "change.go"): change},
	})
	if err != nil {
		return s, err
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	err = errors.Join(
		os.WriteFile(change, []byte("package main\n\nvar _ = 1\n"), 0o644),
		os.WriteFile(overlayFile, overlay, 0o644))
	if err != nil {
		return s, err
	}
	if s.Build.Warm, err = build("-overlay", overlayFile); err != nil {
		return s, err
	}
	s.Elapsed = s.Build.Cold + s.Build.Warm
	info, err := os.Stat(out)
	if err != nil {
		return s, err
	}
	s.Build.Size = info.Size()
	return s, nil
}

// workspace returns the root of the repository.
func workspace(ctx context.Context) (string, error) {
	file, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOWORK: %w", err)
	}
	work := string(bytes.TrimSpace(file))
	if work == "" || work == "off" {
		return "", errors.New("the build workload needs to run within the repository, where go.work is")
	}
	return filepath.Dir(work), nil
}
