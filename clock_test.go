package yonder_test

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wallTime are the uses of wall time that there are outside of tests, by file and function, each
// with why it is none that a clock which jumps could harm. All else that is timed is by readings of
// the monotonic clock, which times of time.Now have and lose by what TestWallClock looks for.
var wallTime = map[string]string{
	"internal/bench/budget.go: budget: (time.Time).Format":      reportDate,
	"internal/bench/budget.go: budget: (time.Time).UTC":         reportDate,
	"internal/bench/main.go: measureReport: (time.Time).Format": reportDate,
	"internal/bench/main.go: measureReport: (time.Time).UTC":    reportDate,
	"internal/soak/main.go: report: (time.Time).Format":         reportDate,
	"internal/soak/main.go: report: (time.Time).UTC":            reportDate,
	"internal/soak/main.go: run: (time.Time).UnixNano":          "a seed, which may be anything",
	"internal/cborjson/tojson.go: epoch: time.Unix":             userValue,
	"internal/cborjson/tojson.go: epoch: (time.Time).UTC":       userValue,
	"internal/cborjson/tojson.go: epoch: (time.Time).Format":    userValue,
	"jsonrpc/plan.go: write: (time.Time).MarshalJSON":           userValue,
	"jsonrpc/poster.go: statusError: net/http.ParseTime":        "Retry-After may be a date: a foreign server's, and no wait of ours is longer than its caller's context",
	"net/rpc/dial.go: connect: time.Unix":                       "a deadline that has passed, whatever the clock says",
}

const (
	reportDate = "the date of a report, for people"
	userValue  = "a value of the program's on its way, which nothing is timed by"
)

// TestWallClock goes through the source of all modules for what reads wall time, or compares times
// that have no reading of the monotonic clock.
func TestWallClock(t *testing.T) {
	if testing.Short() {
		t.Skip("it goes through the source of the standard library; run it without -short")
	}
	if raceEnabled {
		t.Skip("there is nothing in it for the race detector")
	}
	c := &sourceImporter{fset: token.NewFileSet(), packages: make(map[string]*types.Package), context: build.Default}
	c.context.CgoEnabled, c.context.GOOS, c.context.GOARCH = false, "linux", "amd64"
	c.findModules(t)
	found := make(map[string]bool)
	var files int
	for _, dir := range c.folders(t) {
		info := &types.Info{Uses: make(map[*ast.Ident]types.Object), Types: make(map[ast.Expr]types.TypeAndValue)}
		_, syntax, err := c.check(c.pathOf(dir), dir, info)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range syntax {
			files++
			for _, use := range wallUses(info, f) {
				found[c.fset.File(f.Pos()).Name()+": "+use] = true
			}
		}
	}
	if files < 200 {
		t.Errorf("only %d files were looked at", files)
	}
	for _, use := range slices.Sorted(maps.Keys(found)) {
		if wallTime[use] == "" {
			t.Errorf("%q uses wall time; use what time.Now, Add, Sub, Since and Until do with the monotonic clock, or say why not in wallTime", use)
		}
	}
	for use := range wallTime {
		if !found[use] {
			t.Errorf("%q is not there any more", use)
		}
	}
}

// What TestWallClock looks for is found.
func TestWallUses(t *testing.T) {
	const source = `package p
import ("context"; "os"; "time"; "example.com/unknown")
var deadline = time.Now().Add(time.Second)
func good(ctx context.Context) (time.Duration, bool) {
	d, _ := ctx.Deadline()
	return time.Until(d), time.Now().After(deadline) || d.IsZero() || time.Since(deadline) > 0
}
func bad(info os.FileInfo, u unknown.Thing) {
	_ = time.Now().UnixNano()
	_ = time.Now().Round(0)
	_ = deadline == time.Now()
	_ = deadline.Equal(time.Unix(1, 0))
	_ = time.Since(info.ModTime())
	_ = map[time.Time]int{}
	_ = deadline.UTC()
	_ = u.When().Unix()
}`
	c := &sourceImporter{fset: token.NewFileSet(), packages: make(map[string]*types.Package), context: build.Default}
	c.context.CgoEnabled = false
	f, err := parser.ParseFile(c.fset, "p.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object), Types: make(map[ast.Expr]types.TypeAndValue)}
	conf := types.Config{Importer: c, Error: func(error) {}}
	conf.Check("p", c.fset, []*ast.File{f}, info)
	want := []string{
		"bad: (time.Time).UnixNano", "bad: (time.Time).Round", "bad: times by ==", "bad: (time.Time).Equal", "bad: time.Unix",
		"bad: (io/fs.FileInfo).ModTime", "bad: a map by times", "bad: (time.Time).UTC", "bad: Unix of what is not known",
	}
	have := wallUses(info, f)
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(have, want) {
		t.Errorf("found %q\nwant %q", have, want)
	}
}

// wallNames are functions of package time, and methods of time.Time, that read wall time, or lose
// the reading of the monotonic clock.
var wallNames = strings.Fields(`Unix UnixMilli UnixMicro UnixNano Date Parse ParseInLocation Round Truncate Equal
	Format AppendFormat String GoString AppendText AppendBinary MarshalText MarshalBinary MarshalJSON UnmarshalText
	UnmarshalBinary UnmarshalJSON GobEncode GobDecode In UTC Local AddDate Clock Year Month Day YearDay Weekday ISOWeek
	Hour Minute Second Nanosecond`)

// wallUses returns what a file does with wall time, each with the function that does.
func wallUses(info *types.Info, f *ast.File) (uses []string) {
	isTime := func(t types.Type) bool {
		if tuple, ok := t.(*types.Tuple); ok && tuple.Len() > 0 {
			t = tuple.At(0).Type()
		}
		named, ok := types.Unalias(t).(*types.Named)
		return ok && named.Obj().Pkg() != nil && named.Obj().Pkg().Path() == "time" && named.Obj().Name() == "Time"
	}
	what := func(n ast.Node) string {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			if (n.Op == token.EQL || n.Op == token.NEQ) && isTime(info.Types[n.X].Type) {
				return "times by " + n.Op.String()
			}
		case *ast.MapType:
			if isTime(info.Types[n.Key].Type) {
				return "a map by times"
			}
		case *ast.SelectorExpr:
			object := info.Uses[n.Sel]
			if object == nil || object.Pkg() == nil {
				if of := info.Types[n.X].Type; object == nil && (of == nil || of == types.Typ[types.Invalid]) && strings.HasPrefix(n.Sel.Name, "Unix") {
					return n.Sel.Name + " of what is not known"
				}
				return ""
			}
			full := object.Pkg().Path() + "." + object.Name()
			t := object.Type()
			switch object := object.(type) {
			case *types.Func:
				full, t = object.FullName(), object.Signature().Results()
				if receiver := object.Signature().Recv(); object.Pkg().Path() == "time" {
					if slices.Contains(wallNames, object.Name()) && (receiver == nil || isTime(receiver.Type())) {
						return full
					}
					return ""
				}
			case *types.Var:
			default:
				return ""
			}
			// A time of another package's has no reading of the monotonic clock, but for a context's.
			if isTime(t) && !strings.HasPrefix(object.Pkg().Path(), module) && full != "(context.Context).Deadline" {
				return full
			}
		}
		return ""
	}
	for _, decl := range f.Decls {
		in := "outside of functions"
		if function, ok := decl.(*ast.FuncDecl); ok {
			in = function.Name.Name
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			if use := what(n); use != "" && !slices.Contains(uses, in+": "+use) {
				uses = append(uses, in+": "+use)
			}
			return true
		})
	}
	return uses
}

// A sourceImporter finds the types of packages by their source: those of the modules here, and the
// standard library's. Others are empty.
type sourceImporter struct {
	fset     *token.FileSet
	context  build.Context
	packages map[string]*types.Package
	modules  map[string]string // from path to folder
}

// findModules reads go.work.
func (c *sourceImporter) findModules(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("go.work")
	if err != nil {
		t.Fatal(err)
	}
	c.modules = make(map[string]string)
	for line := range strings.Lines(string(text)) {
		dir := strings.TrimSpace(line)
		if !strings.HasPrefix(dir, ".") {
			continue
		}
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(mod), "\n")
		c.modules[strings.TrimPrefix(first, "module ")] = filepath.Clean(dir)
	}
	if len(c.modules) < 7 {
		t.Fatalf("the modules are %v", c.modules)
	}
}

// folders returns those that have packages.
func (c *sourceImporter) folders(t *testing.T) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(dir string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || !entry.IsDir():
			return err
		case entry.Name() == "testdata" || len(entry.Name()) > 1 && entry.Name()[0] == '.':
			return fs.SkipDir
		}
		if p, err := c.context.ImportDir(dir, 0); err == nil && len(p.GoFiles) > 0 {
			dirs = append(dirs, dir)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// pathOf returns a folder's import path.
func (c *sourceImporter) pathOf(dir string) string {
	best, root := "", ""
	for mod, at := range c.modules {
		if at == "." || dir == at || strings.HasPrefix(dir, at+"/") {
			if best == "" || len(at) > len(root) || root == "." {
				best, root = mod, at
			}
		}
	}
	rest, _ := filepath.Rel(root, dir)
	return path.Join(best, filepath.ToSlash(rest))
}

// Import implements [types.Importer].
func (c *sourceImporter) Import(name string) (*types.Package, error) {
	if name == "unsafe" {
		return types.Unsafe, nil
	}
	if p := c.packages[name]; p != nil {
		return p, nil
	}
	for mod, root := range c.modules {
		if rest, ok := strings.CutPrefix(name, mod); ok && (rest == "" || rest[0] == '/') {
			if dir := filepath.Join(root, rest); c.pathOf(dir) == name {
				p, _, err := c.check(name, dir, nil)
				return p, err
			}
		}
	}
	src := filepath.Join(c.context.GOROOT, "src")
	for _, dir := range []string{filepath.Join(src, name), filepath.Join(src, "vendor", name)} {
		if _, err := os.Stat(dir); err == nil {
			p, _, err := c.check(name, dir, nil)
			return p, err
		}
	}
	p := types.NewPackage(name, path.Base(name))
	p.MarkComplete()
	c.packages[name] = p
	return p, nil
}

// check finds the types of a package, and, if there is an info, of all that is in its functions.
func (c *sourceImporter) check(name, dir string, info *types.Info) (*types.Package, []*ast.File, error) {
	of, err := c.context.ImportDir(dir, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dir, err)
	}
	var files []*ast.File
	for _, file := range of.GoFiles {
		f, err := parser.ParseFile(c.fset, filepath.Join(dir, file), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
	}
	conf := types.Config{Importer: c, IgnoreFuncBodies: info == nil, FakeImportC: true, Error: func(error) {}} // of packages that are empty here
	p, _ := conf.Check(name, c.fset, files, info)
	if info == nil {
		c.packages[name] = p
	}
	return p, files, nil
}
