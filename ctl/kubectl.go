package ctl

import (
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"

	_ "github.com/skiff-sh/skiff/ctl/lang"
	"github.com/skiff-sh/skiff/daemon"
)

func kubectlCommand(in *instance) *cobra.Command {
	return &cobra.Command{
		Use: "kubectl ...", Short: "Upstream's kubectl, for this cluster unless KUBECONFIG or --kubeconfig says otherwise",
		Example:            "  skiff kubectl get nodes\n  skiff kubectl apply -f app.yaml",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			return Kubectl(in.name, args)
		},
	}
}

// Kubectl runs upstream's command line. Without KUBECONFIG it is the instance's administrator.
func Kubectl(name string, args []string) error {
	if os.Getenv("KUBECONFIG") == "" {
		cfg, err := daemon.Load(name, os.Getenv("SKIFF_DATA_DIR"))
		if err == nil {
			// kubectl reads files only; this one is kept current by the server and is root's alone.
			err = os.Setenv("KUBECONFIG", cfg.AdminKubeconfigFile())
		}
		if err != nil {
			return err
		}
	}
	PlainKubectl(args)
	return nil
}

// PlainKubectl is upstream's command line as it is: it knows no instance. It returns the exit code of a success, and ends
// the process otherwise.
func PlainKubectl(args []string) int {
	// kubectl looks into os.Args by itself, for plug-ins and help texts.
	os.Args = append([]string{"kubectl"}, args...)
	k := cmd.NewDefaultKubectlCommandWithArgs(cmd.KubectlOptions{
		PluginHandler: cmd.NewDefaultPluginHandler([]string{"kubectl"}),
		Arguments:     os.Args,
		IOStreams:     genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
	})
	k.SetArgs(args)
	if err := cli.RunNoErrOutput(k); err != nil {
		util.CheckErr(err) // words the error as kubectl does, and exits
	}
	return 0
}
