package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/clienttest"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

func start(t *testing.T, coordinators int) *clienttest.Cluster {
	t.Helper()
	c, err := clienttest.Start(coordinators)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func dial(t *testing.T, to config.Context, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.Dial(to, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestASubmissionSurvivesTheLossOfACoordinator(t *testing.T) {
	fake := start(t, 3)
	c := dial(t, fake.Context())
	if _, err := c.Submit(t.Context(), cluster.Job{Name: "first", Kind: "training"}); err != nil {
		t.Fatal(err)
	}
	fake.Kill(0)
	fake.Refuse(1, fault.New(fault.Unready, "there is no leader"))
	done, err := c.Submit(t.Context(), cluster.Job{Name: "second", Kind: "training"})
	if err != nil || done.Job.State != cluster.JobQueued || done.Job.Owner != "root" {
		t.Fatalf("%+v, %v", done, err)
	}
	if fake.Calls("Submit") != 3 { // first; second at the unready one and at the last
		t.Errorf("%d calls", fake.Calls("Submit"))
	}
}

func TestACoordinatorOfAnEarlierVersionIsLeftForAnother(t *testing.T) {
	fake := start(t, 2)
	c := dial(t, fake.Context())
	fake.Refuse(0, status.Error(codes.Unimplemented, "unknown service"))
	if _, err := c.WhoAmI(t.Context()); err != nil {
		t.Errorf("the other knows it: %v", err)
	}
	fake.Refuse(1, status.Error(codes.Unimplemented, "unknown service"))
	if _, err := c.WhoAmI(t.Context()); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "upgrade the coordinators") {
		t.Errorf("none knows it: %v", err)
	}
	if fake.Calls("WhoAmI") != 4 {
		t.Errorf("%d calls: each is asked once", fake.Calls("WhoAmI"))
	}
}

func TestARequestWaitsForALeaderAndGivesUpInTheEnd(t *testing.T) {
	fake := start(t, 2)
	c := dial(t, fake.Context(), client.WithPatience(200*time.Millisecond))
	for i := range 2 {
		fake.Refuse(i, fault.New(fault.Unready, "there is no leader"))
	}
	_, err := c.WhoAmI(t.Context())
	if !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "there is no leader") || !strings.Contains(err.Error(), "majority") {
		t.Fatalf("%v", err)
	}
	patient := dial(t, fake.Context())
	answered := make(chan error, 1)
	before := fake.Calls("WhoAmI")
	go func() {
		_, err := patient.WhoAmI(t.Context())
		answered <- err
	}()
	for fake.Calls("WhoAmI") < before+4 { // it has asked all of them, and again
		select {
		case err := <-answered:
			t.Fatalf("gave up: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	fake.Refuse(1, nil)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestWhatIsWrongWithTheRequestIsToldAtOnceWithItsKind(t *testing.T) {
	fake := start(t, 2)
	fake.Check = func(cluster.Job) error { return fault.New(fault.Invalid, "name: %q is not a name", "X") }
	c := dial(t, fake.Context())
	if _, err := c.Submit(t.Context(), cluster.Job{Name: "X"}); !fault.Is(err, fault.Invalid) || err.Error() != `name: "X" is not a name` {
		t.Errorf("%v", err)
	}
	if _, err := c.Job(t.Context(), "nobody"); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	if calls := fake.Calls("Submit") + fake.Calls("Get"); calls != 2 {
		t.Errorf("%d calls: asked again though the answer cannot change", calls)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	fake := start(t, 1)
	to := fake.Context()
	to.Token = "clary_u_guess"
	if _, err := dial(t, to).WhoAmI(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("a wrong token: %v", err)
	}
	to = fake.Context()
	to.CAPin = "sha256:" + strings.Repeat("00", 32)
	began := time.Now()
	_, err := dial(t, to).WhoAmI(t.Context())
	if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "another CA") || !strings.Contains(err.Error(), "clary login") {
		t.Errorf("another CA: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("another CA was found out after %s", took)
	}
	if fake.Calls("WhoAmI") != 1 {
		t.Error("a request, with its token, was sent to a server of another CA")
	}
	if _, err := client.Dial(config.Context{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("an empty context: %v", err)
	}
}

func TestAWatchGoesOnAtAnotherCoordinatorUntilTheJobEnds(t *testing.T) {
	fake := start(t, 2)
	c := dial(t, fake.Context())
	if _, err := c.Submit(t.Context(), cluster.Job{Name: "a", Kind: "training"}); err != nil {
		t.Fatal(err)
	}
	var states []cluster.JobState
	for view, err := range c.Watch(t.Context(), "a") {
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, view.Job.State)
		switch len(states) {
		case 1:
			fake.Kill(0)
			fake.Update("a", func(v *client.JobView) { v.Job.State = cluster.JobRunning })
		case 2:
			fake.Update("a", func(v *client.JobView) { v.Job.State = cluster.JobSucceeded })
		}
	}
	if len(states) != 3 || states[2] != cluster.JobSucceeded {
		t.Errorf("%v", states)
	}
}

func TestAWatchEndsWithItsContext(t *testing.T) {
	fake := start(t, 1)
	c := dial(t, fake.Context())
	if _, err := c.Submit(t.Context(), cluster.Job{Name: "a", Kind: "training"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range c.Watch(ctx, "a") {
		last = err
		cancel()
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("%v", last)
	}
}

func TestObjectsComeBackAsTheyWentThoughACoordinatorDies(t *testing.T) {
	fake := start(t, 2)
	c := dial(t, fake.Context())
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	stored, err := c.PutObject(t.Context(), "s3://b/k", bytes.NewReader(data), int64(len(data)))
	if err != nil || stored.Size != int64(len(data)) || stored.SHA256 == "" {
		t.Fatalf("%+v, %v", stored, err)
	}
	var got bytes.Buffer
	killer := writerFunc(func(p []byte) (int, error) {
		if got.Len() == 0 {
			fake.Kill(0)
		}
		return got.Write(p)
	})
	told := 0
	if _, err := c.GetObject(t.Context(), "s3://b/k", 0, killer, func(client.Object) { told++ }); err != nil || !bytes.Equal(got.Bytes(), data) || told != 1 {
		t.Errorf("%d bytes, told %d times, %v", got.Len(), told, err)
	}
	got.Reset()
	if _, err := c.GetObject(t.Context(), "s3://b/k", 999_990, &got, nil); err != nil || got.String() != "0123456789" {
		t.Errorf("the end: %q, %v", got.String(), err)
	}
	if n, err := c.DeleteObject(t.Context(), "s3://b/", true); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := c.StatObject(t.Context(), "s3://b/k"); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAnUploadIsRepeatedIfItsInputCanBe(t *testing.T) {
	fake := start(t, 2)
	c := dial(t, fake.Context())
	fake.Refuse(0, fault.New(fault.Unready, "stopping"))
	if _, err := c.PutObject(t.Context(), "s3://b/a", strings.NewReader("text"), 4); err != nil {
		t.Errorf("from a file: %v", err)
	}
	if data, _ := fake.Object("s3://b/a"); string(data) != "text" {
		t.Errorf("%q", data)
	}
	broken := io.MultiReader(strings.NewReader("half"), errReader{})
	if _, err := c.PutObject(t.Context(), "s3://b/b", broken, -1); !fault.Is(err, fault.Invalid) {
		t.Errorf("a broken input: %v", err)
	}
	if _, found := fake.Object("s3://b/b"); found {
		t.Error("half an object was stored")
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

func TestTokensAreMadeOnceAndRevoked(t *testing.T) {
	fake := start(t, 2)
	fake.Refuse(0, fault.New(fault.Unready, "no leader"))
	c := dial(t, fake.Context())
	token, secret, err := c.CreateToken(t.Context(), cluster.TokenUser, "ada", cluster.RoleUser, time.Hour)
	if err != nil || secret == "" || token.Expires-token.Created != int64(time.Hour) || fake.Calls("CreateToken") != 1 {
		t.Fatalf("%+v, %v, %d calls", token, err, fake.Calls("CreateToken"))
	}
	ada := fake.Context()
	ada.Token = secret
	who, err := dial(t, ada).WhoAmI(t.Context())
	if err != nil || who.Name != "ada" || who.Role != cluster.RoleUser {
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := c.RevokeToken(t.Context(), token.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, ada).WhoAmI(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("a revoked token: %v", err)
	}
	tokens, err := c.Tokens(t.Context())
	if err != nil || len(tokens) != 2 {
		t.Errorf("%v, %v", tokens, err)
	}
}

func TestJobsAreListedPageByPage(t *testing.T) {
	fake := start(t, 1)
	c := dial(t, fake.Context())
	for _, name := range []string{"c", "a", "b"} {
		if _, err := c.Submit(t.Context(), cluster.Job{Name: name, Kind: "training"}); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for job, err := range c.AllJobs(t.Context(), client.Filter{Limit: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, job.Name)
	}
	if strings.Join(names, "") != "abc" || fake.Calls("List") != 2 {
		t.Errorf("%v in %d calls", names, fake.Calls("List"))
	}
}
