package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func logsCommand(in *instance) *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use: "logs", Short: "Print what the server and agent that run in the background have logged", Args: cobra.NoArgs,
		Example: "  skiff logs -n 20\n  skiff logs -f",
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as it grows")
	cmd.Flags().IntVarP(&lines, "lines", "n", 100, "how many lines from the end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := in.load()
		if err != nil {
			return err
		}
		f, err := os.Open(cfg.LogFile())
		if err != nil {
			return fmt.Errorf("%w (a server in the foreground logs to its terminal)", err)
		}
		defer f.Close()
		if err := seekLines(f, lines); err != nil {
			return err
		}
		return copyLog(cmd.Context(), cmd.OutOrStdout(), f, follow)
	}
	return cmd
}

func copyLog(ctx context.Context, out io.Writer, f *os.File, follow bool) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.Copy(out, f); err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// seekLines moves to the start of the last n lines, reading backwards.
func seekLines(f *os.File, n int) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for at := end; at > 0; {
		size := min(at, int64(len(buf)))
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || at+i == end-1 {
				continue
			}
			if n--; n == 0 {
				_, err := f.Seek(at+i+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// tail is the last n lines of a file, or why they cannot be read.
func tail(file string, n int) string {
	f, err := os.Open(file)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	var b bytes.Buffer
	if err := seekLines(f, n); err != nil {
		return err.Error()
	}
	_, _ = io.Copy(&b, io.LimitReader(f, 64<<10))
	return b.String()
}
