package cri

import (
	"bytes"
	"errors"
	"io"
	"os"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	maxEndMessage  = 4096 // bytes of a termination message file
	maxEndLogBytes = 2048 // bytes and lines taken from the log instead
	maxEndLogLines = 80
)

// NotFound reports whether the runtime does not know what was asked for.
func NotFound(err error) bool { return notFound(err) }

func notFound(err error) bool { return status.Code(err) == codes.NotFound }

// Message is the text of a runtime's error without gRPC's frame.
func Message(err error) string {
	var g interface{ GRPCStatus() *status.Status }
	if errors.As(err, &g) {
		return g.GRPCStatus().Message()
	}
	return err.Error()
}

// endMessage is what a container that ended left to be shown: its message file, the end of its log if it asked for
// that and failed, or the runtime's own words.
func endMessage(st *runtimeapi.ContainerStatus) string {
	if path := st.Annotations[AnnotationTermPath]; path != "" {
		for _, m := range st.Mounts {
			if m.ContainerPath != path || m.HostPath == "" {
				continue
			}
			if b := readTail(m.HostPath, maxEndMessage); len(b) > 0 {
				return string(b)
			}
		}
	}
	if st.ExitCode != 0 && st.Annotations[AnnotationTermPol] == string(corev1.TerminationMessageFallbackToLogsOnError) && st.LogPath != "" {
		if s := logTail(readTail(st.LogPath, 4*maxEndLogBytes)); s != "" {
			return s
		}
	}
	return st.Message
}

// readTail reads the last n bytes of a regular file, or nothing.
func readTail(path string, n int64) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	if fi.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return nil
		}
	}
	b, _ := io.ReadAll(io.LimitReader(f, n))
	return b
}

// logTail strips the CRI log format ("time stream tag text") off the last lines of a log.
func logTail(b []byte) string {
	lines := bytes.SplitAfter(b, []byte("\n"))
	if len(lines) > maxEndLogLines+1 {
		lines = lines[len(lines)-maxEndLogLines-1:]
	}
	var out []byte
	for _, l := range lines {
		parts := bytes.SplitN(l, []byte(" "), 4)
		if len(parts) != 4 {
			continue // the cut-off first line
		}
		text := parts[3]
		if bytes.HasPrefix(parts[2], []byte("P")) {
			text = bytes.TrimSuffix(text, []byte("\n"))
		}
		out = append(out, text...)
	}
	if len(out) > maxEndLogBytes {
		out = out[len(out)-maxEndLogBytes:]
	}
	return string(out)
}
