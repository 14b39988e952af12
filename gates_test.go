package yonder_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What follows is not about calls but about what the module is: what it depends on, how
// large programs become, and where they can be built.

var update = flag.Bool("update", false, "rewrite testdata/deps.txt")

const module = "github.com/yonder-rpc/yonder"

// runGo runs the go command for a platform, GOOS/GOARCH, so that the answer is the same
// wherever the test runs.
func runGo(t *testing.T, platform string, args ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it runs the go command; run it without -short")
	}
	if raceEnabled {
		t.Skip("it runs the go command, which the race detector does not see into")
	}
	goos, goarch, _ := strings.Cut(platform, "/")
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: go %s: %v\n%s", platform, strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out)
}

// deps returns what a package depends on, itself included, in the order of the paths. The
// standard library's internal packages are left out: they come and go with its versions.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	var paths []string
	for line := range strings.Lines(runGo(t, "linux/amd64", "list", "-deps", "-f", "{{.Standard}} {{.ImportPath}}", pkg)) {
		standard, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		elements := strings.Split(path, "/")
		if standard == "true" && (slices.Contains(elements, "internal") || elements[0] == "vendor") {
			continue
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// A new dependency is a decision: testdata/deps.txt is what there is.
func TestDependencies(t *testing.T) {
	root := deps(t, module)
	const file = "testdata/deps.txt"
	if *update {
		if err := os.MkdirAll("testdata", 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(strings.Join(root, "\n")+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Fields(string(want)), root); diff != "" {
		t.Errorf("the root package's dependencies, -want +got (-update rewrites %s):\n%s", file, diff)
	}
	for _, heavy := range []string{"net/http", "crypto/tls", "text/template", "encoding/gob"} {
		if slices.Contains(root, heavy) {
			t.Errorf("the root package depends on %s; what needs it is a package of its own", heavy)
		}
	}
	for _, layer := range []struct {
		pkg    string
		own    []string // of this module
		cannot []string
	}{
		{"internal/wire", nil, []string{"net", "context", "log/slog"}},
		{"internal/fn", []string{"internal/plain"}, []string{"net", "log/slog", "github.com/fxamacker/cbor/v2"}},
		{"internal/layers", nil, []string{"log/slog", "crypto/x509", "encoding/json"}},
		{"internal/cborjson", nil, []string{"net", "log/slog", "encoding/json", "github.com/fxamacker/cbor/v2"}},
		{"internal/pattern", nil, []string{"net", "context", "log/slog", "regexp"}},
		{"internal/plain", nil, []string{"net", "context", "log/slog", "encoding/json", "github.com/fxamacker/cbor/v2"}},
		{"internal/buffer", nil, []string{"net", "context", "log/slog"}},
		{"internal/mux", []string{"internal/wire", "internal/buffer"}, []string{"log/slog", "encoding/json", "github.com/fxamacker/cbor/v2"}},
	} {
		have := deps(t, module+"/"+layer.pkg)
		for _, path := range layer.cannot {
			if slices.Contains(have, path) {
				t.Errorf("%s depends on %s", layer.pkg, path)
			}
		}
		for _, path := range have {
			own, ok := strings.CutPrefix(path, module+"/")
			if ok && own != layer.pkg && !slices.Contains(layer.own, own) {
				t.Errorf("%s depends on %s, which is not below it", layer.pkg, own)
			}
		}
	}
	for _, light := range []struct{ pkg, cannot string }{{"auth", "crypto/tls"}, {"auth", "crypto/x509"}, {"tlsconn", "net/http"}, {"overload", "net/http"}, {"overload", "crypto/tls"}} {
		if slices.Contains(deps(t, module+"/"+light.pkg), light.cannot) {
			t.Errorf("%s depends on %s, which who uses it for something else need not pay for", light.pkg, light.cannot)
		}
	}
	// Frames are functions over slices: no state, and nobody to share it with.
	imports := strings.Fields(runGo(t, "linux/amd64", "list", "-f", `{{join .Imports " "}}`, module+"/internal/wire"))
	for _, path := range []string{"io", "os", "sync", "sync/atomic", "reflect"} {
		if slices.Contains(imports, path) {
			t.Errorf("internal/wire imports %s", path)
		}
	}
}

// maxHello is the largest that a program with a server and a client may be, in bytes: 4 MiB.
const maxHello = 4 << 20

func TestSize(t *testing.T) {
	program := filepath.Join(t.TempDir(), "hello")
	runGo(t, "linux/amd64", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./examples/hello")
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("examples/hello, stripped, linux/amd64: %d bytes", info.Size())
	if info.Size() > maxHello {
		t.Errorf("examples/hello has %d bytes, more than %d; go tool nm -size -sort size of a build with symbols shows what is large", info.Size(), maxHello)
	}
}

// The linker leaves out what nothing can call. Who does not use these must not pay for them.
func TestDeadCode(t *testing.T) {
	symbols := make(map[string]string)
	for _, program := range []string{"./examples/hello", "./testdata/deadcode/functions", "./testdata/deadcode/service", "./testdata/deadcode/json"} {
		file := filepath.Join(t.TempDir(), "program")
		runGo(t, "linux/amd64", "build", "-o", file, program)
		symbols[program] = runGo(t, "linux/amd64", "tool", "nm", file)
	}
	for _, tt := range []struct{ symbol, with, without, why string }{
		{"main.(*service).Add", "./testdata/deadcode/functions", "", "it is called"},
		{
			"main.(*service).Uncalled", "./testdata/deadcode/service", "./testdata/deadcode/functions",
			"methods are kept where some code looks them up by name or number, as only RegisterService does",
		},
		{
			"encoding/json.(*Decoder).Decode", "./testdata/deadcode/json", "./examples/hello",
			"only JSON uses encoding/json; what is there of its encoder is log/slog's",
		},
		{"yonder.jsonCodec", "./testdata/deadcode/json", "./examples/hello", "the codec is opt-in"},
	} {
		if !strings.Contains(symbols[tt.with], tt.symbol) {
			t.Errorf("%s is not in %s: this test cannot fail", tt.symbol, tt.with)
		}
		if strings.Contains(symbols[tt.without], tt.symbol) {
			t.Errorf("%s is in %s: %s", tt.symbol, tt.without, tt.why)
		}
	}
}

func TestBuilds(t *testing.T) {
	for _, platform := range []string{"windows/amd64", "darwin/arm64", "linux/arm64", "linux/386"} {
		t.Run(platform, func(t *testing.T) {
			runGo(t, platform, "build", "./...")
			runGo(t, platform, "vet", "./...") // of the tests, too
		})
	}
	t.Run("js/wasm", func(t *testing.T) {
		runGo(t, "js/wasm", "build", ".", "./internal/cborjson", "./internal/fn", "./internal/mux", "./internal/wire", "./yondertest")
	})
}
