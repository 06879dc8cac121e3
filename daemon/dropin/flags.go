package dropin

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/skiff-sh/skiff/internal/version"
)

// upstream holds, for each program, the names and types of all flags of the release, and the feature gates.
//
//go:embed upstream/*.txt
var upstream embed.FS

// errDone says that what the flags asked for (--help, --version) has been done.
var errDone = errors.New("done")

// flags are one program's: those that mean something here are declared by name on the embedded set, the rest is taken
// and told of.
type flags struct {
	*pflag.FlagSet
	p *process
	// quiet are flags without effect of which nothing needs to be told: what they would change cannot be seen here.
	quiet []string
}

func (p *process) flags() *flags {
	f := &flags{FlagSet: pflag.NewFlagSet(p.name, pflag.ContinueOnError), p: p}
	f.SortFlags = false
	f.SetOutput(p.out)
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
	f.Usage = func() {}
	return f
}

// parse reads the arguments. It returns errDone after --help and --version, and warns of what has no meaning here.
func (f *flags) parse() error {
	verbosity := f.IntP("v", "v", 0, "how much to log: 4 and more is for debugging")
	asked := f.String("version", "false", "print the version and end")
	f.Lookup("version").NoOptDefVal = "true"
	help := f.BoolP("help", "h", false, "print this and end")
	rest, err := f.rest()
	if err != nil {
		return err
	}
	if err := f.Parse(f.p.args); err != nil {
		return err
	}
	switch {
	case *help:
		f.help(rest)
		return errDone
	case *asked != "false":
		fmt.Fprintln(f.p.out, "Kubernetes", version.String())
		return errDone
	case f.NArg() > 0:
		return fmt.Errorf("unknown command %q for %q", f.Arg(0), f.p.name)
	}
	if *verbosity >= 4 {
		f.p.level.Set(-4)
	}
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		if f.Changed(name) && !slices.Contains(f.quiet, name) {
			f.p.log.Warn("a flag has no meaning here and is ignored", "flag", "--"+name, "value", f.Lookup(name).Value.String())
		}
	}
	return nil
}

// set is the flags that were given, with their values.
func (f *flags) set() map[string]string {
	out := map[string]string{}
	f.Visit(func(one *pflag.Flag) { out[one.Name] = one.Value.String() })
	return out
}

// rest declares every flag of upstream's that is not declared yet.
func (f *flags) rest() (map[string]*unused, error) {
	table, err := upstream.ReadFile("upstream/" + f.p.name + ".txt")
	if err != nil {
		return nil, err
	}
	out := map[string]*unused{}
	for line := range strings.Lines(string(table)) {
		name, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
		if f.Lookup(name) != nil {
			continue
		}
		u := &unused{kind: kind}
		out[name] = u
		flag := f.VarPF(u, name, "", "")
		flag.Hidden = true
		if kind == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
	return out, nil
}

func (f *flags) help(rest map[string]*unused) {
	fmt.Fprintf(f.p.out, "%s\nThis is Skiff standing in for upstream's %s (%s).\n\nUsage:\n  %s [flags]\n\nFlags:\n%s", f.p.short, f.p.name,
		version.Kubernetes, f.p.name, f.FlagUsages())
	fmt.Fprintf(f.p.out, "\nTaken, but without a meaning here:\n")
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		fmt.Fprintf(f.p.out, "      --%s %s\n", name, rest[name].kind)
	}
}

// unused is the value of a flag that has no meaning here. It is checked all the same: a wrong value is a mistake.
type unused struct{ kind, text string }

func (u *unused) String() string { return u.text }
func (u *unused) Type() string   { return u.kind }

func (u *unused) Set(text string) (err error) {
	switch u.kind {
	case "bool":
		_, err = strconv.ParseBool(text)
	case "int":
		_, err = strconv.ParseInt(text, 10, 64)
	case "float32":
		_, err = strconv.ParseFloat(text, 32)
	case "duration":
		_, err = time.ParseDuration(text)
	case "map":
		for pair := range strings.SplitSeq(text, ",") {
			if pair != "" && !strings.Contains(pair, "=") {
				err = fmt.Errorf("%q must be formatted as key=value", pair)
			}
		}
	}
	if u.text != "" {
		text = u.text + "," + text
	}
	u.text = text
	return err
}

// gates reads --feature-gates ("kube:Name=true" or "Name=true"): an unknown name is an error, one that is set to what it
// is not here is told of, but for those that can be switched.
func (f *flags) gates(settings []string, switchable ...string) (map[string]bool, error) {
	table, err := upstream.ReadFile("upstream/feature-gates.txt")
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(table)) {
		name, state, _ := strings.Cut(strings.TrimSpace(line), " ")
		known[name] = state == "on"
	}
	set := map[string]bool{}
	for _, s := range settings {
		name, text, ok := strings.Cut(s, "=")
		name = strings.TrimSpace(name)
		if component, rest, found := strings.Cut(name, ":"); found {
			if component != "kube" {
				return nil, fmt.Errorf(`invalid argument %q for "--feature-gates" flag: component not registered: %s`, s, component)
			}
			name = rest
		}
		if !ok {
			return nil, fmt.Errorf(`invalid argument %q for "--feature-gates" flag: missing bool value for %s`, s, name)
		}
		on, err := strconv.ParseBool(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf(`invalid argument %q for "--feature-gates" flag: invalid value of %s=%s, err: %w`, s, name, text, err)
		}
		usual, ok := known[name]
		if !ok {
			return nil, fmt.Errorf(`invalid argument %q for "--feature-gates" flag: unrecognized feature gate: kube:%s`, s, name)
		}
		set[name] = on
		if on != usual && !slices.Contains(switchable, name) {
			f.p.log.Warn("a feature gate cannot be switched here", "gate", name, "asked", on, "is", usual)
		}
	}
	return set, nil
}
