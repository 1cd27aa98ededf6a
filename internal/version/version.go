// Package version says which build of Clary this is.
package version

import "runtime/debug"

// version is set by the linker: -X github.com/clary-ml/clary/internal/version.version=v1.2.3.
var version string

// String is the version that the build was given, else the module's version or the
// commit that the Go tool recorded, else "dev".
func String() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	return fromBuild(info)
}

func fromBuild(info *debug.BuildInfo) string {
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			return setting.Value[:12]
		}
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return "dev"
}
