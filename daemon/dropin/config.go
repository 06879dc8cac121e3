package dropin

import (
	"fmt"
	"maps"
	"os"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// readConfig reads a component's configuration file, of the kind and version that into has, and warns of the fields that
// have no meaning here: those not in used. Fields that upstream does not know are errors.
func (p *process) readConfig(file, apiVersion, kind string, into any, used ...string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("failed to load config file: %w", err)
	}
	var is metav1.TypeMeta
	if err := yaml.Unmarshal(b, &is); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if is.APIVersion != apiVersion || is.Kind != kind {
		return fmt.Errorf("%s is a %s of %q, and not a %s of %q", file, is.Kind, is.APIVersion, kind, apiVersion)
	}
	if err := yaml.UnmarshalStrict(b, into); err != nil {
		return fmt.Errorf("%s: strict decoding error: %w", file, err)
	}
	set := map[string]any{}
	if err := yaml.Unmarshal(b, &set); err != nil {
		return err
	}
	for _, field := range slices.Sorted(maps.Keys(set)) {
		if field != "kind" && field != "apiVersion" && !slices.Contains(used, field) {
			p.log.Warn("a field of the configuration has no meaning here and is ignored", "field", field)
		}
	}
	return nil
}
