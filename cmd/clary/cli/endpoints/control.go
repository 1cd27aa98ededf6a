package endpoints

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/invoke"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

// endpointControls are the commands that change an endpoint.
func (a app) endpointControls() []*cobra.Command {
	return []*cobra.Command{
		a.endpointUpdateCommand(), a.endpointWeightsCommand(), a.endpointScaleCommand(), a.endpointRollbackCommand(), a.endpointRewardCommand(), a.endpointDeleteCommand(),
	}
}

// waitFlags say whether to wait until a change is done.
type waitFlags struct {
	detach  bool
	timeout time.Duration
}

func (w *waitFlags) register(command *cobra.Command) {
	command.Flags().BoolVarP(&w.detach, "detach", "d", false, "do not wait for it")
	command.Flags().DurationVar(&w.timeout, "timeout", 0, "give up waiting after so long, with exit code 124")
}

// changed waits for a change, if that is wanted, and shows the endpoint as it is then.
func (a app) changed(ctx context.Context, c *client.Client, view client.EndpointView, w waitFlags, generation int64, said string) error {
	if !w.detach {
		var err error
		if view, err = a.settle(ctx, c, view.Job.Name, generation, w.timeout); err != nil {
			return err
		}
	}
	e := endpointToJSON(view)
	return a.Print(e, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "%s %s: %s\n", view.Job.Name, said, strings.Join(variantTexts(e), " "))
		return err
	})
}

func (a app) endpointWeightsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "weights NAME VARIANT=WEIGHT...", Short: "Set how an endpoint's variants share the requests",
		Long:    "Set how an endpoint's variants share the requests, at once. Weights count beside one another: 90 and 10 is as 9 and 1.\nVariants that are not named keep theirs. One of weight 0 gets only what names it.",
		Example: "  clary endpoint weights churn blue=90 green=10\n  clary endpoint weights churn green=0",
		Args:    shell.Takes("NAME", "VARIANT=WEIGHT..."), ValidArgsFunction: a.completeAssignments(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			weights := map[string]float64{}
			for _, text := range args[1:] {
				variant, weight, found := strings.Cut(text, "=")
				value, err := strconv.ParseFloat(weight, 64)
				switch {
				case !found || variant == "":
					return fault.New(fault.Invalid, "%q is not VARIANT=WEIGHT, such as blue=90", text)
				case err != nil || !(value >= 0) || math.IsInf(value, 0):
					return fault.New(fault.Invalid, "weight of %s: %q is no number from 0", variant, cluster.Clip(weight))
				}
				weights[variant] = value
			}
			view, err := c.SetWeights(ctx, args[0], weights)
			if err != nil {
				return err
			}
			return a.changed(ctx, c, view, waitFlags{detach: true}, 0, "shares its requests")
		}),
	}
}

func (a app) endpointScaleCommand() *cobra.Command {
	var least, most int32
	var wait waitFlags
	command := &cobra.Command{
		Use: "scale NAME [COUNT | VARIANT=COUNT... | VARIANT...]", Short: "Set how many replicas an endpoint's variants have, or the bounds of those that follow the load",
		Long: "Set how many replicas an endpoint's variants have: COUNT for each, or VARIANT=COUNT. Replicas that go first finish what they\n" +
			"have. With 0 requests wait until there is a replica again, as long as limits.hold_time says. --min and --max are the\n" +
			"bounds of variants that follow the load: of those that are named, or of all.",
		Example: "  clary endpoint scale churn 4\n  clary endpoint scale churn blue=4 green=1\n  clary endpoint scale churn --min 1 --max 8\n  clary endpoint scale churn blue --max 16",
		Args:    shell.Takes("NAME", "[COUNT|VARIANT...]"), ValidArgsFunction: a.completeAssignments(),
	}
	command.Args = func(command *cobra.Command, args []string) error {
		if len(args) == 0 {
			return shell.Takes("NAME")(command, args)
		}
		return nil
	}
	flags := command.Flags()
	flags.Int32Var(&least, "min", 0, "the fewest replicas of a variant that follows the load; 0 lets it have none while nobody asks")
	flags.Int32Var(&most, "max", 0, "the most replicas of a variant that follows the load")
	wait.register(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		bounds := client.VariantScale{}
		if command.Flags().Changed("min") {
			bounds.Min = &least
		}
		if command.Flags().Changed("max") {
			bounds.Max = &most
		}
		scales, err := scalesOf(command, args[1:], bounds)
		if err != nil {
			return err
		}
		return a.With(func(ctx context.Context, c *client.Client, args []string) error {
			view, err := c.ScaleEndpoint(ctx, args[0], scales)
			if err != nil {
				return err
			}
			return a.changed(ctx, c, view, wait, 0, fmt.Sprintf("has %d replicas", wantedOf(view)))
		})(command, args)
	}
	return command
}

// scalesOf reads COUNT and VARIANT=COUNT, or with bounds VARIANT.
func scalesOf(command *cobra.Command, texts []string, bounds client.VariantScale) ([]client.VariantScale, error) {
	bounded := bounds.Min != nil || bounds.Max != nil
	switch {
	case bounded && len(texts) == 0:
		return []client.VariantScale{bounds}, nil
	case len(texts) == 0:
		return nil, shell.Usage(command, "say how many: COUNT, VARIANT=COUNT, or --min and --max")
	}
	var scales []client.VariantScale
	for _, text := range texts {
		scale, err := scaleOf(command, text, bounds, bounded)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(scales, func(s client.VariantScale) bool { return s.Variant == scale.Variant }) {
			return nil, shell.Usage(command, "%q: %s is there twice", text, cmp.Or(scale.Variant, "a count for each variant"))
		}
		scales = append(scales, scale)
	}
	return scales, nil
}

func scaleOf(command *cobra.Command, text string, bounds client.VariantScale, bounded bool) (client.VariantScale, error) {
	variant, count, found := strings.Cut(text, "=")
	if bounded {
		if found {
			return bounds, shell.Usage(command, "%q beside --min or --max: a variant has a count, or follows the load between bounds", text)
		}
		bounds.Variant = variant
		return bounds, nil
	}
	if !found {
		variant, count = "", text
	}
	n, err := strconv.ParseInt(count, 10, 32)
	if err != nil || n < 0 {
		return bounds, fault.New(fault.Invalid, "%q is no count of replicas: give COUNT or VARIANT=COUNT", cluster.Clip(text))
	}
	replicas := int32(n)
	return client.VariantScale{Variant: variant, Replicas: &replicas}, nil
}

func (a app) endpointRollbackCommand() *cobra.Command {
	var wait waitFlags
	var reason string
	command := &cobra.Command{
		Use: "rollback NAME", Short: "Go back: end an update in progress, or return to what ran before the last one",
		Long: "Go back. An update in progress ends, and the old replicas have all requests again at once. After one that is done the\n" +
			"spec from before its replicas is brought back, as an update of its own. Settings that were changed without new\n" +
			"replicas (weights, limits, capture) are no step to go back to: set them again with clary endpoint update.",
		Example: "  clary endpoint rollback churn --reason 'answers look wrong'",
		Args:    shell.Takes("NAME"), ValidArgsFunction: a.completeEndpoints(),
	}
	command.Flags().StringVar(&reason, "reason", "", "why, for those who look at the endpoint later")
	wait.register(command)
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		now, err := c.Endpoint(ctx, args[0])
		if err != nil {
			return err
		}
		view, err := c.RollbackEndpoint(ctx, now.Endpoint, reason)
		if err != nil {
			return err
		}
		generation := view.Endpoint.Generation
		if r := view.Endpoint.Rollout; r != nil && r.Phase != cluster.RolloutRollingBack {
			generation = r.To
		}
		return a.changed(ctx, c, view, wait, generation, "goes back")
	})
	return command
}

func (a app) endpointRewardCommand() *cobra.Command {
	var id string
	var reward float64
	var urls []string
	command := &cobra.Command{
		Use: "reward NAME --inference-id ID --reward NUMBER", Short: "Say how good an answer turned out to be, for comparing variants",
		Long:    "Say how good an answer of an endpoint turned out to be, by the inference id that came with it (clary invoke -v, or the\nheader X-Clary-Inference-Id). The variants' mean rewards are compared by an A/B test.",
		Example: "  clary endpoint reward churn --inference-id 7f3a… --reward 0.8",
		Args:    shell.Takes("NAME"), ValidArgsFunction: a.completeEndpoints(),
	}
	flags := command.Flags()
	flags.StringVar(&id, "inference-id", "", "of the answer")
	flags.Float64Var(&reward, "reward", 0, "how good it was: any number, more is better")
	flags.StringSliceVar(&urls, "url", nil, "routers to tell, as https://HOST:PORT (default: those that the cluster knows)")
	command.RunE = func(command *cobra.Command, args []string) error {
		switch {
		case id == "":
			return shell.Usage(command, "--inference-id is missing: clary invoke -v shows it")
		case !command.Flags().Changed("reward"):
			return shell.Usage(command, "--reward is missing: give a number")
		}
		return a.withCaller(urls, func(ctx context.Context, caller *invoke.Caller) error {
			if err := caller.Reward(ctx, args[0], id, reward); err != nil {
				return tryAgain(err)
			}
			return a.Print(map[string]any{"inference_id": id, "reward": reward}, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s is worth %v\n", id, reward)
				return err
			})
		})(command, args)
	}
	return command
}

func (a app) endpointDeleteCommand() *cobra.Command {
	var wait waitFlags
	command := &cobra.Command{
		Use: "delete NAME", Short: "End an endpoint: finish what its replicas have, stop them, and forget it",
		Long:    "End an endpoint: routers send it nothing more, its replicas finish what they have and are stopped, and it is forgotten\nwith what it has left below s3://clary/jobs/NAME/. With --detach it is ended only: clary delete NAME forgets it later.",
		Example: "  clary endpoint delete churn",
		Args:    shell.Takes("NAME"), ValidArgsFunction: a.completeEndpoints(),
	}
	wait.register(command)
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		name := args[0]
		view, err := c.Endpoint(ctx, name)
		if err != nil {
			return err
		}
		if !view.Job.State.Ended() && !view.Job.Cancel {
			if _, err := c.Cancel(ctx, name, ""); err != nil && !fault.Is(err, fault.Conflict) {
				return err
			}
		}
		if wait.detach {
			return a.Print(map[string]string{"name": name}, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s is to end\n", name)
				return err
			})
		}
		if wait.timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, wait.timeout, shell.Exitf(124, "%s has not ended after %s: it goes on", name, wait.timeout))
			defer cancel()
		}
		if _, err := a.Watch(ctx, c, name); err != nil {
			if err := shell.GaveUp(ctx); err != nil {
				return err
			}
			return err
		}
		if err := c.Delete(ctx, name); err != nil {
			return err
		}
		return a.Print(map[string]string{"name": name}, func(out io.Writer) error {
			_, err := fmt.Fprintf(out, "%s is deleted\n", name)
			return err
		})
	})
	return command
}
