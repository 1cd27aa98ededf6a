package endpoints

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/invoke"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

// ExitTryAgain is how clary invoke ends where the same request may succeed later: sysexits.h's EX_TEMPFAIL.
const ExitTryAgain = 75

// maxBody is the most that clary invoke sends: it keeps the body to send it again.
const maxBody = 1 << 30

// invokeFlags are those of a request.
type invokeFlags struct {
	request invoke.Request
	data    string
	urls    []string
	timeout time.Duration
	verbose bool
	load    load
}

func (a app) invokeCommand() *cobra.Command {
	var f invokeFlags
	command := &cobra.Command{
		Use:   "invoke ENDPOINT [FILE|-]",
		Short: "Ask an endpoint for an answer, and print it",
		Long: "Send a file, standard input or --data to an endpoint, and write its answer to standard output as it is. -v tells who\n" +
			"answered, and the inference id by which clary endpoint reward says how good the answer was.\n\n" +
			"The request goes to a router of the cluster; where one cannot be reached, to the next. One that a router may have begun\n" +
			"to work on is not sent again. Without --content-type it is the file's by its ending; of other input application/json if\n" +
			"it is JSON, else text/csv.\n\n" +
			"Exit codes: 0 it was answered; 1 it was refused, or the model failed; 75 the same may succeed later: no router could be\n" +
			"reached, the queue was full (429), or no replica could answer in time (502, 503, 504).",
		Example: "  clary invoke churn rows.csv --accept application/json\n  echo 5.1,3.5,1.4,0.2 | clary invoke iris -v\n  clary invoke churn --data '{\"instances\": [[1, 2]]}' --variant green -o json\n" +
			"  clary invoke chat prompt.json --stream\n  clary invoke churn s3://data/rows.csv --async\n  clary invoke churn rows.csv --repeat 1000 --parallel 16",
		Args: shell.Takes("ENDPOINT", "[FILE|-]"), ValidArgsFunction: a.completeInvocation(),
	}
	flags := command.Flags()
	flags.StringVar(&f.data, "data", "", "the request's body itself, in place of a file")
	flags.StringVar(&f.request.ContentType, "content-type", "", "what the body is, e.g. text/csv, application/json")
	flags.StringVar(&f.request.Accept, "accept", "", "what the answer is to be")
	flags.StringVar(&f.request.Variant, "variant", "", "the variant that is to answer, whatever the weights")
	flags.StringVar(&f.request.Model, "model", "", "the model that is to answer, of an endpoint with many")
	flags.StringVar(&f.request.Session, "session", "", "the session that it belongs to, for an endpoint that is sticky")
	flags.StringVar(&f.request.InferenceID, "inference-id", "", "a name of your own for the answer, in place of one that is made up")
	flags.StringVar(&f.request.Attributes, "attributes", "", "a text that the model gets as X-Amzn-SageMaker-Custom-Attributes")
	flags.BoolVar(&f.request.Stream, "stream", false, "print the answer in pieces, as the model makes them")
	flags.BoolVar(&f.request.Async, "async", false, "have it answered in the object store, and print where; FILE may be an s3:// address")
	flags.DurationVar(&f.timeout, "timeout", 0, "give up after so long (default: as the endpoint does)")
	flags.StringSliceVar(&f.urls, "url", nil, "routers to ask, as https://HOST:PORT (default: those that the cluster knows)")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "tell on standard error who answered, and how long it took")
	f.load.register(command)
	_ = command.RegisterFlagCompletionFunc("variant", a.completeVariants)
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := f.load.check(command, &f); err != nil {
			return err
		}
		if err := a.readBody(command, &f, args); err != nil {
			return err
		}
		return a.withCaller(f.urls, func(ctx context.Context, caller *invoke.Caller) error {
			if f.load.wanted() {
				return a.invokeMany(ctx, caller, f)
			}
			return a.invokeOnce(ctx, caller, f)
		})(command, args)
	}
	return command
}

// withCaller runs a body with what asks endpoints: at the routers that are named, else at those that the cluster tells of.
func (a app) withCaller(urls []string, body func(context.Context, *invoke.Caller) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, _ []string) error {
		if err := a.CheckFormat(); err != nil {
			return err
		}
		to, err := a.Cluster()
		if err != nil {
			return err
		}
		options := invoke.Options{CAPin: to.CAPin, Token: to.Token}
		for _, url := range urls {
			options.Routers = append(options.Routers, invoke.Router{URL: url})
		}
		if len(urls) == 0 {
			c, err := client.Dial(to)
			if err != nil {
				return err
			}
			options.Routers, err = c.Routers(command.Context())
			if err = errors.Join(err, c.Close()); err != nil {
				return tryAgain(err)
			}
		}
		caller, err := invoke.New(options)
		if err != nil {
			return tryAgain(err)
		}
		defer caller.Close()
		return body(command.Context(), caller)
	}
}

// readBody finds what is to be sent, and what it is.
func (a app) readBody(command *cobra.Command, f *invokeFlags, args []string) error {
	f.request.Endpoint = args[0]
	var name string
	var err error
	switch {
	case command.Flags().Changed("data") && len(args) > 1:
		return shell.Usage(command, "--data and %s are both a body: leave one of them out", args[1])
	case command.Flags().Changed("data"):
		f.request.Body = []byte(f.data)
	case len(args) > 1 && f.request.Async && strings.HasPrefix(args[1], "s3://"):
		f.request.Input, f.request.ContentType = args[1], cmp.Or(f.request.ContentType, contentType(args[1], nil))
		return nil
	case len(args) > 1 && args[1] != "-":
		name = args[1]
		f.request.Body, err = readSome(name)
	case len(args) == 1 && a.ReadSecret != nil:
		return shell.Usage(command, "there is no body: name a FILE, give --data, or pipe it in")
	default:
		f.request.Body, err = io.ReadAll(io.LimitReader(a.In, maxBody+1))
	}
	if err != nil {
		return fault.New(fault.Invalid, "read the body: %w", err)
	}
	if len(f.request.Body) > maxBody {
		return fault.New(fault.Invalid, "the body has more than %d bytes: leave it in the object store, and see clary transform", maxBody)
	}
	if f.request.ContentType == "" {
		f.request.ContentType = contentType(name, f.request.Body)
	}
	return nil
}

func readSome(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxBody+1))
}

// contentTypes are those of endings that systems know nothing of.
var contentTypes = map[string]string{
	".csv": "text/csv", ".json": "application/json", ".jsonl": "application/jsonlines", ".npy": "application/x-npy", ".npz": "application/x-npz",
	".libsvm": "text/libsvm", ".parquet": "application/x-parquet", ".txt": "text/plain",
}

// contentType is a file's by its ending, else what the body looks like.
func contentType(name string, body []byte) string {
	ending := strings.ToLower(filepath.Ext(name))
	if known := contentTypes[ending]; known != "" {
		return known
	}
	if known := mime.TypeByExtension(ending); known != "" {
		return known
	}
	switch {
	case json.Valid(body) && strings.ContainsAny(string(bytes.TrimSpace(body)[:1]), "{["):
		return "application/json"
	case utf8.Valid(body):
		return "text/csv"
	}
	return "application/octet-stream"
}

// invokeOnce asks once and shows what came.
func (a app) invokeOnce(ctx context.Context, caller *invoke.Caller, f invokeFlags) error {
	ctx, cancel := f.within(ctx)
	defer cancel()
	began := time.Now()
	answer, err := caller.Invoke(ctx, f.request)
	if err != nil {
		return tryAgain(err)
	}
	defer answer.Body.Close()
	switch {
	case a.ForPeople() && f.request.Async:
		_, err = fmt.Fprintf(a.Out, "%s\n", answer.Header.Get(invoke.HeaderOutput))
		a.Note("the answer will be there, or why there is none at %s", answer.Header.Get(invoke.HeaderFailure))
	case a.ForPeople():
		_, err = io.Copy(a.Out, answer.Body)
	default:
		err = a.answerJSON(answer, began)
	}
	if err != nil {
		return tryAgain(fault.New(fault.Unready, "the answer ended before it was whole: %w", err))
	}
	if f.verbose {
		took := time.Since(began)
		return shell.Fields(
			a.Err, "status", fmt.Sprint(answer.Status), "variant", answer.Variant(), "inference id", answer.InferenceID(), "request id", answer.Header.Get(invoke.HeaderRequest),
			"content type", answer.Header.Get("Content-Type"), "attributes", answer.Header.Get(invoke.HeaderAttributes), "router", answer.Router, "took", took.Round(10*time.Microsecond).String(),
		)
	}
	return nil
}

func (f invokeFlags) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if f.timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, f.timeout, shell.Exitf(ExitTryAgain, "there was no answer within %s: raise --timeout", f.timeout))
}

// tryAgain has errors of the moment end with a code of their own.
func tryAgain(err error) error {
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*invoke.Refused](err)
	if ok && refused.Temporary() || !ok && (fault.Is(err, fault.Unready) || errors.Is(err, context.DeadlineExceeded)) {
		return shell.ExitWith(ExitTryAgain, err)
	}
	return err
}

type answerJSON struct {
	Status      int             `json:"status"`
	Variant     string          `json:"variant,omitempty"`
	InferenceID string          `json:"inference_id,omitempty"`
	RequestID   string          `json:"request_id,omitempty"`
	ContentType string          `json:"content_type,omitempty"`
	Attributes  string          `json:"attributes,omitempty"`
	Router      string          `json:"router"`
	Seconds     float64         `json:"seconds"`
	Body        json.RawMessage `json:"body,omitempty"`  // JSON as it came, or a text
	Bytes       []byte          `json:"bytes,omitempty"` // in base64, what is neither
}

func (a app) answerJSON(answer *invoke.Answer, began time.Time) error {
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	out := answerJSON{
		Status: answer.Status, Variant: answer.Variant(), InferenceID: answer.InferenceID(), RequestID: answer.Header.Get(invoke.HeaderRequest),
		ContentType: answer.Header.Get("Content-Type"), Attributes: answer.Header.Get(invoke.HeaderAttributes), Router: answer.Router,
		Seconds: time.Since(began).Seconds(),
	}
	media, _, _ := mime.ParseMediaType(out.ContentType)
	switch {
	case media == "application/json" && json.Valid(body):
		out.Body = body
	case utf8.Valid(body):
		if out.Body, err = json.Marshal(string(body)); err != nil {
			return err
		}
	default:
		out.Bytes = body
	}
	return a.Print(out, nil)
}
