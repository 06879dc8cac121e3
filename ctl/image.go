package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/skiff-sh/skiff/daemon"
	"github.com/skiff-sh/skiff/image"
	"github.com/skiff-sh/skiff/node/runtime"
)

func imageCommand(in *instance) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Make images from local files, and put them into the node's store"}
	cmd.AddCommand(packCommand(), loadCommand(in), listCommand(in))
	return cmd
}

func packCommand() *cobra.Command {
	var spec image.Spec
	var add []string
	var from, out string
	var libraries bool
	cmd := &cobra.Command{
		Use: "pack NAME", Short: "Make an image archive from local files, with no Docker", Args: cobra.ExactArgs(1),
		Example: "  skiff image pack example.com/hello:1 --add ./hello:/hello --entrypoint /hello -o hello.tar\n" +
			"  skiff image pack example.com/curl:1 --add /usr/bin/curl:/usr/bin/curl --libraries --entrypoint curl -o curl.tar",
	}
	f := cmd.Flags()
	f.StringArrayVar(&add, "add", nil, "SRC:DST, a file or folder and where it goes; may be repeated")
	f.BoolVar(&libraries, "libraries", false, "bring along the shared libraries that added programs need")
	f.StringVar(&from, "from", "", "an image archive to build upon")
	f.StringSliceVar(&spec.Entrypoint, "entrypoint", nil, "the program and its first arguments, separated by commas")
	f.StringSliceVar(&spec.Cmd, "cmd", nil, "default arguments, separated by commas")
	f.StringArrayVar(&spec.Env, "env", nil, "NAME=value; may be repeated")
	f.StringVar(&spec.WorkDir, "workdir", "", "the working folder")
	f.StringVar(&spec.User, "user", "", "UID, UID:GID or a name of the image's /etc/passwd")
	f.StringSliceVar(&spec.Ports, "port", nil, "ports that the program listens on, such as 8080 or 53/udp")
	f.StringToStringVar(&spec.Labels, "label", nil, "labels, NAME=value")
	f.StringVarP(&out, "output", "o", "", "the archive to write")
	_ = cmd.MarkFlagRequired("output")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		spec.Name = args[0]
		if len(add) == 0 && from == "" {
			return errors.New("nothing to put into the image: give --add or --from")
		}
		for _, a := range add {
			file, err := image.ParseFile(a)
			if err != nil {
				return err
			}
			file.Libraries = libraries
			spec.Files = append(spec.Files, file)
		}
		if from != "" {
			base, err := image.BaseFile(from)
			if err != nil {
				return err
			}
			spec.Base = base
		}
		if err := image.PackFile(spec, out); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is in %s\n", spec.Name, out)
		return nil
	}
	return cmd
}

func loadCommand(in *instance) *cobra.Command {
	return &cobra.Command{
		Use: "load FILE.tar...", Short: "Put the images of archives into the stores of this machine's nodes", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := in.load()
			if err != nil {
				return err
			}
			for _, arg := range args {
				for _, node := range append([]*daemon.Config{cfg}, cfg.Neighbours()...) {
					names, err := load(cmd.Context(), node, arg)
					if err != nil {
						return fmt.Errorf("%s: node %s: %w", arg, node.NodeName, err)
					}
					for _, name := range names {
						fmt.Fprintf(cmd.OutOrStdout(), "loaded %s into the node %s\n", name, node.NodeName)
					}
				}
			}
			return nil
		},
	}
}

func load(ctx context.Context, node *daemon.Config, archive string) ([]string, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := node.Complete(); err != nil {
		return nil, err
	}
	return runtime.Load(ctx, node.RuntimeConfig(), f)
}

func listCommand(in *instance) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "Show the images of the node's store", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := in.load()
			if err != nil {
				return err
			}
			images, err := runtime.Images(cmd.Context(), cfg.RuntimeConfig())
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tDIGEST\tSIZE")
			for _, im := range images {
				fmt.Fprintf(w, "%s\t%.19s\t%.1f MB\n", im.Name, im.Digest, float64(im.Size)/1e6)
			}
			return w.Flush()
		},
	}
}
