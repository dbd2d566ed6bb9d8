package cli

import (
	"context"
	"fmt"
	"io/fs"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/config/crd"
)

// validators say of an object what the API server would: by the same CustomResourceDefinitions and the same code.
type validators map[string]validator

type validator struct {
	schema     validation.SchemaValidator
	structural *schema.Structural
	rules      *cel.Validator
}

// loadValidators compiles the rules once.
var loadValidators = sync.OnceValues(newValidators)

// newValidators reads the definitions that this program was built with.
func newValidators() (validators, error) {
	files, err := fs.Glob(crd.Bases, "bases/*.yaml")
	if err != nil {
		return nil, err
	}
	out := validators{}
	for _, name := range files {
		raw, err := crd.Bases.ReadFile(name)
		if err != nil {
			return nil, err
		}
		definition := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(raw, definition); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if out[definition.Spec.Names.Kind], err = newValidator(definition); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}

func newValidator(definition *apiextensionsv1.CustomResourceDefinition) (validator, error) {
	props := &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(definition.Spec.Versions[0].Schema.OpenAPIV3Schema, props, nil); err != nil {
		return validator{}, err
	}
	structural, err := schema.NewStructural(props)
	if err != nil {
		return validator{}, err
	}
	checker, _, err := validation.NewSchemaValidator(props)
	if err != nil {
		return validator{}, err
	}
	return validator{schema: checker, structural: structural, rules: cel.NewValidator(structural, true, celconfig.PerCallLimit)}, nil
}

// check returns what is wrong with an object: fields that the kind does not have, values that its schema refuses, and
// broken rules. Where the schema refuses something, the rules are not asked, as in the API server.
func (v validator) check(ctx context.Context, object map[string]any) field.ErrorList {
	var errs field.ErrorList
	pruned := runtime.DeepCopyJSON(object)
	for _, path := range pruning.PruneWithOptions(pruned, v.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
		errs = append(errs, field.Invalid(field.NewPath(path), field.OmitValueType{}, "the kind has no such field"))
	}
	errs = append(errs, validation.ValidateCustomResource(nil, pruned, v.schema)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, v.structural, pruned)...)
	if len(errs) > 0 {
		return errs
	}
	broken, _ := v.rules.Validate(ctx, nil, v.structural, pruned, nil, celconfig.RuntimeCELCostBudget)
	return broken
}
