package match

import (
	"sync"

	regv1 "k8s.io/api/admissionregistration/v1"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
)

// Environment is the base of all expressions. It is made when the first one is compiled: that takes longer than the
// rest of the server's start.
var Environment = sync.OnceValue(func() *environment.EnvSet {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
})

var conditionCompiler = sync.OnceValue(func() plugincel.ConditionCompiler { return plugincel.NewConditionCompiler(Environment()) })

// Conditions compiles match conditions that see no parameters or variables, when they are first asked for.
func Conditions(list []regv1.MatchCondition, fail *regv1.FailurePolicyType, what, name string) func() matchconditions.Matcher {
	return sync.OnceValue(func() matchconditions.Matcher {
		return matchconditions.NewMatcher(conditionCompiler().CompileCondition(ConditionExpressions(list),
			plugincel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.StoredExpressions), fail, what, "admit", name)
	})
}

// ConditionExpressions gives match conditions to a compiler.
func ConditionExpressions(list []regv1.MatchCondition) []plugincel.ExpressionAccessor {
	out := make([]plugincel.ExpressionAccessor, len(list))
	for i := range list {
		out[i] = (*matchconditions.MatchCondition)(&list[i])
	}
	return out
}

// ConditionErrors compiles new match conditions strictly and returns the error of each that fails, by its index.
func ConditionErrors(list []regv1.MatchCondition) map[int]error {
	out := map[int]error{}
	for i, e := range ConditionExpressions(list) {
		ev := conditionCompiler().CompileCondition([]plugincel.ExpressionAccessor{e},
			plugincel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.NewExpressions)
		if errs := ev.CompilationErrors(); len(errs) > 0 {
			out[i] = errs[0]
		}
	}
	return out
}
