package dropin

import (
	"crypto"
	"fmt"
	"time"

	"github.com/skiff-sh/skiff/controllers/certificates"
)

// signing is the flags about who signs certificate requests: one authority for all signers, or one for each.
type signing struct {
	all  authorityFiles
	each map[string]*authorityFiles // by the signer's name
	life time.Duration
}

type authorityFiles struct{ cert, key string }

func (s *signing) flags(f *flags) {
	f.StringVar(&s.all.cert, "cluster-signing-cert-file", "", "the authority that signs certificates")
	f.StringVar(&s.all.key, "cluster-signing-key-file", "", "its key")
	f.DurationVar(&s.life, "cluster-signing-duration", 365*24*time.Hour, "how long signed certificates last at most")
	s.each = map[string]*authorityFiles{}
	for _, one := range []struct{ flag, signer string }{
		{"kube-apiserver-client", "kubernetes.io/kube-apiserver-client"},
		{"kubelet-client", "kubernetes.io/kube-apiserver-client-kubelet"},
		{"kubelet-serving", "kubernetes.io/kubelet-serving"},
		{"legacy-unknown", certificates.LegacyUnknown},
	} {
		a := &authorityFiles{}
		s.each[one.signer] = a
		f.StringVar(&a.cert, "cluster-signing-"+one.flag+"-cert-file", "", "the authority for "+one.signer+" alone")
		f.StringVar(&a.key, "cluster-signing-"+one.flag+"-key-file", "", "its key")
	}
}

// config opens the authorities; their files are read again when they change.
func (s *signing) config() (certificates.SigningConfig, error) {
	c := certificates.SigningConfig{Duration: s.life}
	open := map[string]*reloaded{}
	for signer, own := range s.each {
		files := *own
		if files == (authorityFiles{}) {
			files = s.all
		}
		if files == (authorityFiles{}) {
			continue
		}
		r, err := reload(files.cert, files.key)
		if err != nil {
			return c, fmt.Errorf("the authority of %s: %w", signer, err)
		}
		open[signer] = r
	}
	if len(open) == 0 {
		return c, nil
	}
	c.Authorities = func(signer string) (certificates.Authority, bool) {
		r, ok := open[signer]
		if !ok {
			return certificates.Authority{}, false
		}
		pair, err := r.get()
		if err != nil {
			return certificates.Authority{}, false
		}
		key, ok := pair.PrivateKey.(crypto.Signer)
		return certificates.Authority{Certificate: pair.Leaf, Key: key}, ok
	}
	return c, nil
}
