package operate

import (
	"os"

	"github.com/spf13/pflag"

	"github.com/clary-ml/clary/storage/object"
)

// StoreFlags name an S3 to use instead of the embedded store. Its keys come from the environment.
type StoreFlags struct {
	config object.Config
	caFile string
}

// Add adds the flags.
func (f *StoreFlags) Add(flags *pflag.FlagSet) {
	flags.StringVar(&f.config.Endpoint, "object-store", "", "host:port of an S3 to use instead of the embedded store; its keys come from\nAWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	flags.StringVar(&f.config.Region, "object-store-region", "", "region of --object-store")
	flags.StringVar(&f.caFile, "object-store-ca", "", "PEM file of the CA of --object-store (default: the system's)")
	flags.BoolVar(&f.config.Insecure, "object-store-plaintext", false, "speak plain HTTP to --object-store; loopback addresses only")
}

// Read completes what the flags say with the keys. Nothing is the embedded store.
func (f *StoreFlags) Read() (object.Config, error) {
	store := f.config
	if store.Endpoint == "" {
		return object.Config{}, nil
	}
	store.AccessKey, store.SecretKey = os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	if f.caFile != "" {
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return store, err
		}
		store.CA = pem
	}
	return store, store.Validate()
}
