// Package fault is what goes wrong on a command line: errors with the exit code that they mean and what to do
// about them, and the checks of what was typed.
package fault

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

// Exit codes of the program.
const (
	Done        = 0
	Failed      = 1
	WrongUsage  = 2 // wrong usage or config
	Unreachable = 3 // could not reach the server
)

// failure is an error with the exit code that it means. A nil err: the command has said everything itself.
type failure struct {
	code int
	err  error
	// hint is what to do, on a line of its own.
	hint string
}

func (f *failure) Error() string {
	if f.err == nil {
		return "failed"
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// New is an error with the exit code that it means and, on a line of its own, what to do (empty: not known).
func New(code int, err error, hint string) error { return &failure{code, err, hint} }

// ExitCode of a command: 0 done, 1 failed, 2 wrong usage or config, 3 could not reach the server.
func ExitCode(err error) int {
	var f *failure
	var list config.Errors
	var one *config.Error
	switch {
	case err == nil:
		return Done
	case errors.As(err, &f):
		return f.code
	case errors.As(err, &list), errors.As(err, &one):
		return WrongUsage
	}
	return Failed
}

// Report prints an error of Run for people; it ends with what to do where that is known. Findings in a config
// begin with file:line:column so that editors find the place.
func Report(w io.Writer, err error) {
	if err == nil {
		return
	}
	var f *failure
	hint := ""
	if errors.As(err, &f) {
		if f.err == nil {
			return
		}
		hint = f.hint
	}
	var list config.Errors
	var one *config.Error
	text := ""
	switch {
	case errors.As(err, &list):
		text = screen.CleanLines(list.Error())
	case errors.As(err, &one):
		text = screen.CleanLines(one.Error())
	case f != nil && f.code == WrongUsage && Placed(err.Error()):
		text = screen.CleanLines(err.Error())
	default:
		text = "leat: " + strings.TrimPrefix(screen.CleanLines(err.Error()), "leat ")
	}
	if hint != "" {
		text += "\n" + hint
	}
	fmt.Fprintln(w, text)
}

// Placed reports whether a text begins with FILE:LINE:COLUMN:
func Placed(text string) bool {
	first, _, _ := strings.Cut(text, "\n")
	parts := strings.SplitN(first, ":", 4)
	return len(parts) == 4 && IsDigits(parts[1]) && IsDigits(parts[2])
}

// IsDigits reports whether a text is a number without a sign.
func IsDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// Said is the end of a command that has printed its bad news.
func Said(code int) error { return New(code, nil, "") }

// Usage is an error in how a command was typed.
func Usage(cmd *cobra.Command, format string, args ...any) error {
	return New(WrongUsage, fmt.Errorf(format, args...),
		"Usage: "+cmd.UseLine()+"\nMore:  "+cmd.CommandPath()+" --help")
}

// Unsupported refuses what a later version will do.
func Unsupported(what string) error {
	return New(WrongUsage, fmt.Errorf("%s: not supported by this version", what), "")
}

// UnknownCommand looks for a command that is none, before flags are looked at: the flags of a mistyped
// command are not what is wrong.
func UnknownCommand(root *cobra.Command, args []string) error {
	if _, _, err := root.Find(args); err == nil || len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		return nil // the shell asks for completions: Cobra adds that command later
	}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") {
			return wrongCommand(root, arg)
		}
		var f *pflag.Flag
		if name, long := strings.CutPrefix(arg, "--"); long {
			f = root.PersistentFlags().Lookup(name)
		} else if len(arg) == 2 {
			f = root.PersistentFlags().ShorthandLookup(arg[1:])
		}
		if f != nil && f.NoOptDefVal == "" {
			i++ // its value
		}
	}
	return nil
}

func wrongCommand(parent *cobra.Command, arg string) error {
	var words []string
	for _, c := range parent.Commands() {
		if c.IsAvailableCommand() {
			words = append(words, c.Name())
		}
	}
	err := fmt.Errorf("unknown command %q for %s%s", arg, parent.CommandPath(), Nearest(arg, words, ""))
	return New(WrongUsage, err, "More: "+parent.CommandPath()+" --help")
}

// Group makes a command that only holds others refuse what is none of them.
func Group(cmd *cobra.Command) *cobra.Command {
	cmd.FParseErrWhitelist.UnknownFlags = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return wrongCommand(cmd, args[0])
		}
		var words []string
		for _, c := range cmd.Commands() {
			words = append(words, c.Name())
		}
		return New(WrongUsage, fmt.Errorf("%s wants one of: %s", cmd.CommandPath(), strings.Join(words, ", ")),
			"More: "+cmd.CommandPath()+" --help")
	}
	return cmd
}

// Flag explains what is wrong with a flag.
func Flag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var wrong *pflag.InvalidValueError
	if errors.As(err, &wrong) {
		return Usage(cmd, "%s: --%s: %q is not %s", cmd.CommandPath(), wrong.GetFlag().Name, wrong.GetValue(), flagKind(wrong.GetFlag()))
	}
	if !errors.As(err, &unknown) {
		return Usage(cmd, "%s: %w", cmd.CommandPath(), err)
	}
	name := unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		return Usage(cmd, "%s has no flag -%s", cmd.CommandPath(), name)
	}
	var words []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			words = append(words, f.Name)
		}
	})
	return Usage(cmd, "%s has no flag --%s%s", cmd.CommandPath(), name, Nearest(name, words, "--"))
}

// flagKind says what a flag's value is, for people.
func flagKind(f *pflag.Flag) string {
	switch kind := f.Value.Type(); {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "a whole number in its range"
	case kind == "bool":
		return "true or false"
	default:
		return "a " + kind
	}
}

// Wants checks the number of arguments; names are those of the arguments, in [] what may be left out.
func Wants(names ...string) cobra.PositionalArgs {
	need := 0
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			need++
		}
	}
	return func(cmd *cobra.Command, args []string) error {
		many := len(names) > 0 && strings.Contains(names[len(names)-1], "...")
		switch {
		case len(args) < need:
			return Usage(cmd, "%s wants %s", cmd.CommandPath(), strings.Join(names[len(args):need], " "))
		case len(args) > len(names) && !many:
			return Usage(cmd, "%s has no use for %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// Nearest is "; did you mean X?" when a word is near to what was typed.
func Nearest(got string, words []string, before string) string {
	best, limit := "", max(1, len(got)/3)
	for _, w := range words {
		d := distance(strings.ToLower(got), strings.ToLower(w))
		if d > limit && len(got) >= 2 && strings.HasPrefix(w, strings.ToLower(got)) {
			d = limit
		}
		if d < limit || d == limit && best == "" {
			best, limit = w, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + before + best + "?"
}

// distance is the edit distance with transpositions of neighbours (optimal string alignment).
func distance(s, t string) int {
	a, b := []rune(s), []rune(t)
	const far = 32
	if len(a) > far || len(b) > far {
		return far
	}
	older, old, now := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range old {
		old[j] = j
	}
	for i := range a {
		now[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			now[j+1] = min(old[j+1]+1, now[j]+1, old[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				now[j+1] = min(now[j+1], older[j-1]+1)
			}
		}
		older, old, now = old, now, older
	}
	return old[len(b)]
}
