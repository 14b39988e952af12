// Yonder serves and calls Go functions from the command line: see yonder --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/yonder-rpc/yonder"
)

func main() {
	// The first signal ends what is running in good order; the next kills the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	started := false
	root := rootCommand()
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	args := spellFlags(os.Args[1:])
	root.SetArgs(hideNumbers(root, args))
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !started {
		if wrong := leadingFlags(root, args); wrong != nil {
			err = wrong
		}
		err = usageError{err.Error(), cmd.CommandPath()}
	}
	os.Exit(report(os.Stderr, err))
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "yonder",
		Short: "Serve and call Go functions across processes",
		Long: `Yonder calls Go functions in other processes. This is its tool:
it shows what a server has, and calls it.`,
		Example: `  yonder demo
  yonder ls 127.0.0.1:1234
  yonder call 127.0.0.1:1234 queryUser 1`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(demoCommand(), lsCommand(), callCommand(), versionCommand())
	return root
}

// noArguments is for commands that take none.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument; have %q", cmd.Name(), args[0])
	}
	return nil
}

// Exit statuses besides those of the codes.
const (
	statusFailed = 1
	statusUsage  = 2
	statusInput  = 3
	statusCodes  = 10 // is added to a code
	statusOther  = statusCodes + int(yonder.Unauthenticated) + 1
)

// usageError says that a command was not given what it needs.
type usageError struct {
	text    string
	command string // whose help explains it; empty: the text says enough
}

func (e usageError) Error() string { return e.text }

// inputError says that what a call has read as its argument is wrong.
type inputError struct{ error }

func (e inputError) Unwrap() error { return e.error }

// statusOf returns what to exit with for a code. Programs may have codes of their own, and a status
// has only a byte.
func statusOf(code yonder.Code) int {
	if code > yonder.Unauthenticated {
		return statusOther
	}
	return statusCodes + int(code)
}

// report writes an error for people, and returns the status to exit with.
func report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	if u, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintln(w, "yonder: "+printable(strings.TrimSpace(u.text)))
		if u.command != "" {
			fmt.Fprintf(w, "Run %q for help.\n", u.command+" --help")
		}
		return statusUsage
	}
	if e, ok := errors.AsType[*yonder.Error](err); ok {
		code := yonder.CodeOf(err)
		fmt.Fprintf(w, "yonder: %v: %s\n", code, printable(strings.TrimPrefix(err.Error(), "yonder: ")))
		if e.Details != nil {
			fmt.Fprintf(w, "details: %s\n", printable(jsonText(e.Details)))
		}
		return statusOf(code)
	}
	fmt.Fprintln(w, "yonder: "+printable(err.Error()))
	if _, ok := errors.AsType[inputError](err); ok {
		return statusInput
	}
	return statusFailed
}

// printable returns text that came from elsewhere without what could steer a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// hidden marks arguments that begin as a flag does and are none. No argument of a
// process can have this character.
const hidden = "\x00"

// spellFlags lets who is used to Go's own flags write demo -tls.
func spellFlags(args []string) []string {
	if len(args) == 0 || args[0] != "demo" {
		return args
	}
	out := slices.Clone(args)
	for i, arg := range out {
		if name, _, _ := strings.Cut(arg, "="); name == "-tls" || name == "-tls-cert" || name == "-listen" {
			out[i] = "-" + arg
		}
	}
	return out
}

// hideNumbers hides the negative numbers and durations of a call from the flag parser, but for the
// values of flags, which it takes as they are.
func hideNumbers(root *cobra.Command, args []string) []string {
	cmd, _, _ := root.Find(args)
	if cmd.Name() != "call" {
		return args
	}
	out := make([]string, 0, len(args))
	value := false // of the flag before it
	for i, arg := range args {
		if arg == "--" && !value {
			return append(out, args[i:]...)
		}
		number := len(arg) > 1 && arg[0] == '-' && (arg[1] == '.' || '0' <= arg[1] && arg[1] <= '9')
		if number && !value {
			arg = hidden + arg
		}
		out = append(out, arg)
		value = !value && takesValue(cmd, arg)
	}
	return out
}

// takesValue reports whether arg is a flag of the command whose value is the next argument.
func takesValue(cmd *cobra.Command, arg string) bool {
	name, ok := strings.CutPrefix(arg, "--")
	if !ok {
		return false
	}
	f := cmd.Flags().Lookup(name)
	return f != nil && f.NoOptDefVal == ""
}

// leadingFlags says what is wrong with the flags before the command, of which package cobra takes
// one that it does not know, and the command, for a flag and its value.
func leadingFlags(root *cobra.Command, args []string) error {
	n := slices.IndexFunc(args, func(arg string) bool { return !strings.HasPrefix(arg, "-") })
	if n <= 0 {
		return nil
	}
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	return root.ParseFlags(args[:n])
}
