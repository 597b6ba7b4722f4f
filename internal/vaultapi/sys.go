package vaultapi

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/web"
)

// clusterName is the name of this server as Vault would have one; its id goes by the issuer of the tokens, which all
// replicas share.
const clusterName = "rolecall"

func (a *API) clusterID() string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(a.Identity.Issuer())).String()
}

type health struct {
	Initialized                bool   `json:"initialized"`
	Sealed                     bool   `json:"sealed"`
	Standby                    bool   `json:"standby"`
	PerformanceStandby         bool   `json:"performance_standby"`
	ReplicationPerformanceMode string `json:"replication_performance_mode"`
	ReplicationDRMode          string `json:"replication_dr_mode"`
	ServerTime                 int64  `json:"server_time_utc"` // Unix
	Version                    string `json:"version"`
	Enterprise                 bool   `json:"enterprise"`
	ClusterName                string `json:"cluster_name"`
	ClusterID                  string `json:"cluster_id"`
}

func (a *API) health(w http.ResponseWriter, _ *http.Request, _ *account.Principal) error {
	web.JSON(w, http.StatusOK, "application/json", health{
		Initialized:                true,
		ReplicationPerformanceMode: "disabled",
		ReplicationDRMode:          "disabled",
		ServerTime:                 time.Now().Unix(),
		Version:                    a.Version,
		ClusterName:                clusterName,
		ClusterID:                  a.clusterID(),
	})
	return nil
}

type sealStatus struct {
	Type         string `json:"type"`
	Initialized  bool   `json:"initialized"`
	Sealed       bool   `json:"sealed"`
	Threshold    int    `json:"t"`
	Shares       int    `json:"n"`
	Progress     int    `json:"progress"`
	Nonce        string `json:"nonce"`
	Version      string `json:"version"`
	BuildDate    string `json:"build_date"`
	Migration    bool   `json:"migration"`
	ClusterName  string `json:"cluster_name"`
	ClusterID    string `json:"cluster_id"`
	RecoverySeal bool   `json:"recovery_seal"`
	StorageType  string `json:"storage_type"`
}

func (a *API) sealStatus(w http.ResponseWriter, _ *http.Request, _ *account.Principal) error {
	web.JSON(w, http.StatusOK, "application/json", sealStatus{
		Type:        "shamir", // the one that clients show without asking for more
		Initialized: true,
		Threshold:   1,
		Shares:      1,
		Version:     a.Version,
		ClusterName: clusterName,
		ClusterID:   a.clusterID(),
		StorageType: "postgresql",
	})
	return nil
}
