package cluster

import (
	"fmt"
	"strconv"
	"strings"
)

// ModelRef names a version: by its number, or by an alias. With neither it is the model.
type ModelRef struct {
	Model  string
	Number int64
	Alias  string
}

// ParseModelRef reads NAME, NAME@VERSION or NAME:ALIAS, with or without model:// before it.
func ParseModelRef(text string) (ModelRef, error) {
	short := strings.TrimPrefix(text, ModelScheme)
	var ref ModelRef
	var p Problems
	name, number, byNumber := strings.Cut(short, "@")
	if byNumber {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 1 || n > MaxModelNumber || strconv.FormatInt(n, 10) != number {
			p.Add("", "%q: %q is not the number of a version: they count from 1", Clip(text), Clip(number))
		}
		ref.Number = n
	} else {
		var alias string
		var byAlias bool
		if name, alias, byAlias = strings.Cut(short, ":"); byAlias {
			CheckName(&p, "alias", alias)
			ref.Alias = alias
		}
	}
	CheckName(&p, "model", name)
	if ref.Model = name; len(p) > 0 {
		return ModelRef{}, fmt.Errorf("%q is not NAME, NAME@VERSION or NAME:ALIAS: %w", Clip(text), p)
	}
	return ref, nil
}

// String is the reference without model://.
func (r ModelRef) String() string {
	switch {
	case r.Number != 0:
		return fmt.Sprintf("%s@%d", r.Model, r.Number)
	case r.Alias != "":
		return r.Model + ":" + r.Alias
	}
	return r.Model
}

// Whole reports whether the reference names a model and not a version of it.
func (r ModelRef) Whole() bool { return r.Number == 0 && r.Alias == "" }

// IsModelRef reports whether an address is a reference to a version.
func IsModelRef(uri string) bool { return strings.HasPrefix(uri, ModelScheme) }

// CheckInputAddress reports what is neither s3://bucket/key nor a reference to a version of a model.
func CheckInputAddress(p *Problems, field, uri string) {
	if !IsModelRef(uri) {
		checkURI(p, field, uri)
		return
	}
	switch ref, err := ParseModelRef(uri); {
	case err != nil:
		p.Add(field, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	case ref.Whole():
		p.Add(field, "%q names no version: write %s%s@VERSION or %s%s:ALIAS", Clip(uri), ModelScheme, ref.Model, ModelScheme, ref.Model)
	}
}

// CheckModelInput reports ways of reading that do not go with a model.
func (i Input) CheckModelInput() Problems {
	var p Problems
	if !IsModelRef(i.URI) {
		return nil
	}
	if i.Mode != InputFile || i.Type != InputPrefix || i.Sharded || i.Gzip {
		p.Add("mode", "a model comes as the one file that it is: leave mode, type, sharded and gzip out")
	}
	return p
}

// PinModels puts the artifacts that references were resolved to in the place of the references, in
// all inputs of the roles. Roles are changed in place; their inputs are copied first.
func PinModels(roles []Role, pins []ModelPin) {
	if len(pins) == 0 {
		return
	}
	known := map[string]ModelPin{}
	for _, pin := range pins {
		known[pin.Ref] = pin
	}
	for i := range roles {
		inputs := append([]Input(nil), roles[i].Program.Inputs...)
		for k := range inputs {
			if pin, ok := known[inputs[k].URI]; ok {
				inputs[k].URI, inputs[k].SHA256 = pin.URI, pin.SHA256
			}
		}
		roles[i].Program.Inputs = inputs
	}
}

// ModelRefs are the references to models among the inputs of gangs, each once, in order.
func ModelRefs(gangs []Gang) []string {
	var refs []string
	seen := map[string]bool{}
	for _, gang := range gangs {
		for _, role := range gang.Roles {
			for _, input := range role.Program.Inputs {
				if IsModelRef(input.URI) && !seen[input.URI] {
					seen[input.URI] = true
					refs = append(refs, input.URI)
				}
			}
		}
	}
	return refs
}
