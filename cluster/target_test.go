package cluster_test

import (
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
)

func TestAnOutputGoesNowhereThatIsClarysOwn(t *testing.T) {
	for uri, want := range map[string]string{
		"s3://data/jobs/":                     "",
		"s3://data":                           "",
		"s3://clary/digits/":                  "",
		"s3://clary/jobs2/x":                  "",
		"s3://clary/mine/jobs/x":              "",
		"s3://clary2/jobs/x":                  "",
		"s3://clary/jobs/other/attempts/1/":   "is below s3://clary/jobs/",
		"s3://clary/jobs":                     "is below s3://clary/jobs/",
		"s3://clary//jobs/other/":             "is below s3://clary/jobs/",
		"s3://clary/mine/../models/digits/3/": "is below s3://clary/models/",
		"s3://clary/./uploads/x":              "is below s3://clary/uploads/",
		"s3://clary/../jobs/x":                "is below s3://clary/jobs/",
		"s3://clary":                          "is the root of Clary's own bucket: name a prefix, as s3://clary/NAME/",
		"s3://clary/":                         "is the root",
		"s3://clary/mine/..":                  "is the root",
		"data/x":                              "is not s3://bucket/key",
	} {
		var p cluster.Problems
		cluster.CheckTarget(&p, "output", uri)
		if want == "" && p != nil || want != "" && (len(p) != 1 || p[0].Field != "output" || !strings.Contains(p[0].Text, want)) {
			t.Errorf("%s: %v, want %q", uri, p, want)
		}
	}
}
