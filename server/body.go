package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// maxBody is the largest request body in bytes.
const maxBody = 3 << 20

// trusted is how many bytes of a body are made room for on the client's word alone: ten thousand clients that promise megabytes
// and send nothing cost no memory.
const trusted = 64 << 10

// body reads the request's body, within the time that the request has.
func (x *exchange) body() ([]byte, error) {
	if x.r.ContentLength == 0 || x.r.Body == nil {
		return nil, nil
	}
	if x.r.ContentLength > maxBody {
		return nil, tooLarge()
	}
	x.taken = true
	ctx := x.r.Context()
	// A read waits for the client alone, so the end of the request's time must end the reading.
	rc := http.NewResponseController(x.w)
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = rc.SetReadDeadline(time.Now())
	})
	defer func() {
		if !stop() {
			<-ended // the response must not be touched after its handler has returned
		}
	}()
	data, err := readBody(x.r.Body, x.r.ContentLength)
	switch {
	case err == nil:
		return data, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, ctx.Err()
	}
	return nil, err
}

// grace is how long the body of a request may still come that is answered without it. The HTTP server reads what is left of it
// before it sends the answer, and would wait for ever.
const grace = 5 * time.Second

// leaveBody bounds the time of a body that nobody has read.
func (x *exchange) leaveBody() {
	if x.r.ContentLength != 0 && !x.taken {
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(grace))
	}
}

// readBody reads a body of a known length, or one of unknown length (-1) up to maxBody.
func readBody(r io.Reader, length int64) ([]byte, error) {
	if length < 0 {
		data, err := io.ReadAll(io.LimitReader(r, maxBody+1))
		if err == nil && len(data) > maxBody {
			err = tooLarge()
		}
		return data, err
	}
	data := make([]byte, min(length, trusted))
	read := 0
	for {
		n, err := io.ReadFull(r, data[read:])
		read += n
		switch {
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case int64(read) == length:
			return data, nil
		}
		more := make([]byte, min(length, int64(4*len(data))))
		copy(more, data)
		data = more
	}
}

func tooLarge() error {
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
}
