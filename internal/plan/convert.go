package plan

import (
	"encoding/json"
	"fmt"
)

// convert turns a value into a type of the same JSON form: the API's own bounded types into
// apply configurations, and those into the types that a client reads. Both sides are this
// module's choice, so a failure is a mistake in the code, which the golden tests show.
func convert[T any](in any) *T {
	raw, err := json.Marshal(in)
	if err != nil {
		panic(fmt.Sprintf("marshal %T: %v", in, err))
	}
	out := new(T)
	if err := json.Unmarshal(raw, out); err != nil {
		panic(fmt.Sprintf("convert %T to %T: %v", in, out, err))
	}
	return out
}
