package rpc_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestStandardTests runs the standard library's own tests of net/rpc and net/rpc/jsonrpc
// against these packages, with nothing but their imports changed.
func TestStandardTests(t *testing.T) {
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("there is no go command: %v", err)
	}
	for _, pkg := range []struct {
		dir   string
		files []string
	}{
		{".", []string{"server_test.go", "client_test.go"}},
		{"jsonrpc", []string{"all_test.go"}},
	} {
		t.Run(filepath.Base(pkg.dir), func(t *testing.T) {
			overlay := map[string]string{}
			var names []string
			for _, file := range pkg.files {
				source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "src/net/rpc", pkg.dir, file))
				if err != nil {
					t.Skipf("the standard library's tests are not installed: %v", err)
				}
				source = bytes.ReplaceAll(source, []byte(`"net/rpc"`), []byte(`"github.com/yonder-rpc/yonder/net/rpc"`))
				for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
					names = append(names, string(m[1]))
				}
				here, err := filepath.Abs(filepath.Join(pkg.dir, file))
				if err != nil {
					t.Fatal(err)
				}
				changed := filepath.Join(t.TempDir(), file)
				if err := os.WriteFile(changed, source, 0o600); err != nil {
					t.Fatal(err)
				}
				overlay[here] = changed
			}
			list := filepath.Join(t.TempDir(), "overlay.json")
			data, err := json.Marshal(map[string]any{"Replace": overlay})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(list, data, 0o600); err != nil {
				t.Fatal(err)
			}
			run := "^(" + strings.Join(names, "|") + ")$"
			out, err := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-timeout=60s", "-overlay="+list, "-run="+run, "./"+pkg.dir).CombinedOutput()
			if err != nil {
				t.Fatalf("go test: %v\n%s", err, out)
			}
			for _, name := range names {
				if !bytes.Contains(out, []byte("--- PASS: "+name+" ")) && !bytes.Contains(out, []byte("--- SKIP: "+name+" ")) {
					t.Errorf("%s did not run:\n%s", name, out)
				}
			}
		})
	}
}
