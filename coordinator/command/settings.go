package command

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// putSettings writes the cluster's settings.
func (w *recording) putSettings(settings cluster.Settings, expected uint64) error {
	old := w.Settings()
	if err := w.expect(state.KindSettings, cluster.SettingsID, expected, old.Revision); err != nil {
		return err
	}
	if settings.Revision = old.Revision; settings == old {
		return nil
	}
	if err := settings.Validate().Err(); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	w.PutSettings(settings)
	return nil
}
