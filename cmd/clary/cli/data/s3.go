package data

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

// s3Settings is what programs that speak S3 read from their environment.
type s3Settings struct {
	Endpoint  string `json:"endpoint_url"`
	Region    string `json:"region"`
	AccessKey string `json:"access_key_id"`
	SecretKey string `json:"secret_access_key"`
	CABundle  string `json:"ca_bundle"`
}

func (a app) s3Command() *cobra.Command {
	return &cobra.Command{
		Use:   "s3",
		Short: "Print what aws, boto3 and other S3 programs need to use the object store",
		Long: "Print your own S3 keys, the store's address and its CA as variables that aws, boto3 and the like read.\n" +
			"The keys are worth as much as your token: do not print them into a log.",
		Example: "  eval \"$(clary s3)\"\n  aws s3 mb s3://data\n  aws s3 cp train.csv.gz s3://data/digits/",
		Args:    shell.Takes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			credentials, err := c.Credentials(ctx)
			if err != nil {
				return err
			}
			bundle, err := a.SaveCA(credentials.CAPEM)
			if err != nil {
				return err
			}
			settings := s3Settings{credentials.Endpoint, credentials.Region, credentials.AccessKey, credentials.SecretKey, bundle}
			return a.Print(settings, settings.export)
		}),
	}
}

// export writes the settings as a shell takes them in.
func (s s3Settings) export(out io.Writer) error {
	for _, variable := range [][2]string{
		{"AWS_ENDPOINT_URL", s.Endpoint},
		{"AWS_DEFAULT_REGION", s.Region},
		{"AWS_ACCESS_KEY_ID", s.AccessKey},
		{"AWS_SECRET_ACCESS_KEY", s.SecretKey},
		{"AWS_CA_BUNDLE", s.CABundle},
	} {
		quoted := "'" + strings.ReplaceAll(variable[1], "'", `'\''`) + "'"
		if _, err := fmt.Fprintf(out, "export %s=%s\n", variable[0], quoted); err != nil {
			return err
		}
	}
	return nil
}
