package authn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/util/filesystem"

	"github.com/skiff-sh/skiff/server/authn/jwt"
)

// StructuredConfig is an AuthenticationConfiguration, from a file that is followed or given as it is.
type StructuredConfig struct {
	// File is read at once, and again when it changes. A change that is wrong, or whose providers do not answer, leaves
	// everything as it was.
	File string
	// Fixed is the configuration where there is no file.
	Fixed *apiserver.AuthenticationConfiguration
	// Algorithms are the signatures that are believed; none: all of jwt.Algorithms for a file, else RS256.
	Algorithms []string
	// Taken are the issuers of the server's own tokens.
	Taken []string
	// AnonymousSettled says that it is decided elsewhere who may come without credentials: the file must not.
	AnonymousSettled bool
	// Reloaded hears how each attempt to read the file again ended; nil: nobody does.
	Reloaded func(err error)
	Log      *slog.Logger
}

// Structured authenticates as an AuthenticationConfiguration says.
type Structured struct {
	cfg       StructuredConfig
	compiler  cel.Compiler
	read      []byte // the file, as it was last judged
	anonymous *apiserver.AnonymousAuthConfig
	current   atomic.Pointer[issuers]
}

// issuers are those of one reading of the configuration.
type issuers []*jwt.Issuer

// NewStructured reads and checks the configuration.
func NewStructured(c StructuredConfig) (*Structured, error) {
	s := &Structured{cfg: c, compiler: cel.NewDefaultCompiler()}
	conf := c.Fixed
	if c.File != "" {
		if len(c.Algorithms) == 0 {
			s.cfg.Algorithms = jwt.Algorithms
		}
		var err error
		if s.read, err = os.ReadFile(c.File); err != nil {
			return nil, err
		}
		if conf, err = decode(s.read); err != nil {
			return nil, err
		}
	}
	if c.AnonymousSettled && conf.Anonymous != nil {
		return nil, field.Forbidden(field.NewPath("anonymous"), "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file")
	}
	first, err := s.issuers(conf)
	if err != nil {
		return nil, fmt.Errorf("invalid authentication configuration: %w", err)
	}
	s.anonymous = conf.Anonymous
	s.current.Store(first)
	return s, nil
}

// Anonymous is what the configuration says about requests without credentials; nil: nothing. It is the same as long as the
// server runs.
func (s *Structured) Anonymous() *apiserver.AnonymousAuthConfig { return s.anonymous }

// decode reads one of the versions of AuthenticationConfiguration. Fields that it does not know are an error.
func decode(b []byte) (*apiserver.AuthenticationConfiguration, error) {
	if len(b) == 0 {
		return nil, errors.New("empty config data")
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	obj, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), b)
	if err != nil {
		return nil, err
	}
	c, ok := obj.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("expected AuthenticationConfiguration, got %T", obj)
	}
	return c, nil
}

func (s *Structured) issuers(c *apiserver.AuthenticationConfiguration) (*issuers, error) {
	if err := validation.ValidateAuthenticationConfiguration(s.compiler, c, s.cfg.Taken).ToAggregate(); err != nil {
		return nil, err
	}
	list := issuers{}
	for _, one := range c.JWT {
		i, err := jwt.New(jwt.Config{JWTAuthenticator: one, Algorithms: s.cfg.Algorithms, Taken: s.cfg.Taken, Compiler: s.compiler, Log: s.cfg.Log})
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	return &list, nil
}

// AuthenticateToken implements authenticator.Token: the issuer that a token names judges it, and nobody else.
func (s *Structured) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	for _, i := range *s.current.Load() {
		if r, ok, err := i.AuthenticateToken(ctx, token); ok || err != nil {
			return r, ok, err
		}
	}
	return nil, false, nil
}

const (
	look    = time.Minute // how often the file is looked at, in case nobody tells of a change
	patient = time.Minute // how long providers may take before their configuration is given up
	linger  = time.Minute // how long replaced issuers finish what they have begun
)

// Run reaches the providers and follows the file until ctx ends.
func (s *Structured) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	start := func(list *issuers) (stop context.CancelFunc) {
		ctx, stop := context.WithCancel(ctx)
		for _, i := range *list {
			running.Go(func() { i.Run(ctx) })
		}
		return stop
	}
	stop := start(s.current.Load())
	if s.cfg.File == "" {
		defer stop()
		<-ctx.Done()
		return nil
	}
	filesystem.WatchUntil(ctx, look, s.cfg.File, func() {
		next, err := s.reread()
		if next == nil && err == nil {
			return
		}
		if err == nil {
			stopNext := start(next)
			if err = next.wait(ctx); err != nil {
				stopNext()
				s.read = nil // the same file may do once they answer
			} else {
				s.current.Store(next)
				old := stop
				stop = stopNext
				running.Go(func() {
					select {
					case <-ctx.Done():
					case <-time.After(linger):
					}
					old()
				})
			}
		}
		if err != nil {
			s.cfg.Log.Error("the authentication configuration stays as it was", "file", s.cfg.File, "err", err)
		} else {
			s.cfg.Log.Info("the authentication configuration was read again", "file", s.cfg.File)
		}
		if s.cfg.Reloaded != nil {
			s.cfg.Reloaded(err)
		}
	}, func(err error) { s.cfg.Log.Warn("the authentication configuration cannot be watched", "err", err) })
	stop()
	return nil
}

// reread makes the issuers of the file if that has changed since it was last judged.
func (s *Structured) reread() (*issuers, error) {
	b, err := os.ReadFile(s.cfg.File)
	if err != nil || bytes.Equal(b, s.read) {
		return nil, err
	}
	s.read = b
	c, err := decode(b)
	if err != nil {
		return nil, err
	}
	if !reflect.DeepEqual(c.Anonymous, s.anonymous) {
		return nil, field.Forbidden(field.NewPath("anonymous"), "changed from initial configuration file")
	}
	return s.issuers(c)
}

// wait returns when all providers have answered, or an error when one takes too long.
func (list *issuers) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patient, errors.New("not every provider of tokens answers"))
	defer cancel()
	for _, i := range *list {
		select {
		case <-i.Ready():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
