package submit

import (
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/training"
)

// ChannelOptionHelp says how a channel may be read.
const ChannelOptionHelp = "how the data is read, as CHANNEL=OPTION,...: fast_file, pipe, sharded, gzip, record_io, manifest,\n" +
	"augmented_manifest, attribute:NAME, content_type:TYPE"

// ChannelInputs reads flags that name channels, and those that say more of them.
func ChannelInputs(flag string, channels, options []string) (map[string]training.Input, error) {
	if len(channels)+len(options) == 0 {
		return nil, nil
	}
	inputs := map[string]training.Input{}
	for _, text := range channels {
		channel, uri, found := strings.Cut(text, "=")
		if !found || channel == "" || uri == "" {
			return nil, fault.New(fault.Invalid, "%s: %q is not CHANNEL=s3://... or CHANNEL=PATH", flag, cluster.Clip(text))
		}
		if inputs[channel].URI != "" {
			return nil, fault.New(fault.Invalid, "%s: the channel %s is named twice", flag, cluster.Clip(channel))
		}
		inputs[channel] = training.Input{URI: uri}
	}
	for _, text := range options {
		channel, list, _ := strings.Cut(text, "=")
		input, known := inputs[channel]
		if !known {
			return nil, fault.New(fault.Invalid, "%s-option: there is no channel %q: name its data first", flag, cluster.Clip(channel))
		}
		for option := range strings.SplitSeq(list, ",") {
			if !setOption(&input, option) {
				return nil, fault.New(fault.Invalid, "%s-option: %q is no option of a channel: %s", flag, cluster.Clip(option), strings.ReplaceAll(ChannelOptionHelp, "\n", " "))
			}
		}
		inputs[channel] = input
	}
	return inputs, nil
}

// setOption reports whether it knows the option.
func setOption(input *training.Input, option string) bool {
	key, value, hasValue := strings.Cut(option, ":")
	switch {
	case key == "attribute" && value != "":
		input.Attributes = append(input.Attributes, value)
	case key == "content_type" && value != "":
		input.ContentType = value
	case hasValue:
		return false
	case key == string(cluster.InputFastFile), key == string(cluster.InputPipe):
		input.Mode = cluster.InputMode(key)
	case key == string(cluster.InputManifest), key == string(cluster.InputAugmentedManifest):
		input.Type = cluster.InputType(key)
	case key == "sharded":
		input.Sharded = true
	case key == "gzip":
		input.Gzip = true
	case key == "record_io":
		input.RecordIO = true
	default:
		return false
	}
	return true
}
