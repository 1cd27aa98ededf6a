package object_test

import (
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

func TestURIsAreReadOrRefusedWithTheReason(t *testing.T) {
	for text, want := range map[string]object.URI{
		"s3://data/a/b.txt": {Bucket: "data", Key: "a/b.txt"},
		"s3://data":         {Bucket: "data"},
		"s3://data/":        {Bucket: "data"},
		"s3://data/a/":      {Bucket: "data", Key: "a/"},
		"s3://d.t-1/ü x":    {Bucket: "d.t-1", Key: "ü x"},
	} {
		if got, err := object.ParseURI(text); got != want || err != nil {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "s3://bucket/key", "data/a": "s3://bucket/key", "S3://data/a": "s3://bucket/key",
		"s3:///a": "bucket", "s3://ab/a": "3 to 63", "s3://Data/a": "a-z", "s3://data-/a": "letter or digit",
		"s3://data/a//b": "empty part", "s3://data/../x": "..", "s3://data//a": "empty part",
		"s3://data/\xff": "UTF-8", "s3://data/" + strings.Repeat("k", 1025): "1024",
	} {
		if _, err := object.ParseURI(text); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
	if got := (object.URI{Bucket: "data", Key: "a/"}).Join("b", "c").String(); got != "s3://data/a/b/c" {
		t.Errorf("joined %s", got)
	}
	if got := (object.URI{Bucket: "data"}).Join("b").String(); got != "s3://data/b" {
		t.Errorf("joined %s", got)
	}
}

func TestPlainHTTPIsForLoopbackOnly(t *testing.T) {
	base := object.Config{AccessKey: "a", SecretKey: "s", Insecure: true}
	for endpoint, good := range map[string]bool{
		"127.0.0.1:9000": true, "[::1]:9000": true, "localhost:9000": true,
		"10.0.0.1:9000": false, "store:9000": false, "127.0.0.1": false, "": false,
	} {
		base.Endpoint = endpoint
		if err := base.Validate(); (err == nil) != good || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
	err := object.Config{CA: []byte("rubbish")}.Validate()
	for _, want := range []string{"endpoint", "access key", "ca:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not report %q", err, want)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("s3://data/a/b")
	f.Add("s3://data")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := object.ParseURI(text)
		if err != nil {
			return
		}
		if again, err := object.ParseURI(u.String()); err != nil || again != u {
			t.Errorf("%q is %+v, which is read back as %+v, %v", text, u, again, err)
		}
	})
}
