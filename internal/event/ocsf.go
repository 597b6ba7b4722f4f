package event

import (
	"cmp"

	"rolecall/internal/audit"
)

// ocsfVersion is that of the schema: https://schema.ocsf.io/1.3.0
const ocsfVersion = "1.3.0"

// ocsfClass is a class of the schema. All that are used are of the category Identity & Access Management, but the base.
type ocsfClass struct {
	uid  int
	name string
}

var (
	baseEvent        = ocsfClass{0, "Base Event"}
	accountChange    = ocsfClass{3001, "Account Change"}
	authentication   = ocsfClass{3002, "Authentication"}
	entityManagement = ocsfClass{3004, "Entity Management"}
	userAccess       = ocsfClass{3005, "User Access Management"}
)

// ocsfActivity is what an action is in the schema.
type ocsfActivity struct {
	class  ocsfClass
	id     int
	name   string
	entity string // the type of what is changed, in Entity Management
}

func ofAccount(id int, name string) ocsfActivity { return ocsfActivity{accountChange, id, name, ""} }

func ofEntity(id int, name, kind string) ocsfActivity {
	return ocsfActivity{entityManagement, id, name, kind}
}

const otherID = 99

// ocsfActivities is the mapping. docs/events.md has it as a table.
var ocsfActivities = map[string]ocsfActivity{
	audit.CreateUser:      ofAccount(1, "Create"),
	audit.ChangePassword:  ofAccount(3, "Password Change"),
	audit.ChangedOutside:  ofAccount(3, "Password Change"),
	audit.ChangeLimits:    ofAccount(otherID, "Other"),
	audit.ChangeRoles:     {userAccess, otherID, "Other", ""},
	audit.ChangeAccess:    {userAccess, otherID, "Other", ""},
	audit.DisableUser:     ofAccount(5, "Disable"),
	audit.EnableUser:      ofAccount(2, "Enable"),
	audit.DeleteUser:      ofAccount(6, "Delete"),
	audit.ReadVerifiers:   ofEntity(2, "Read", "Password verifiers"),
	audit.CreateLease:     ofAccount(1, "Create"),
	audit.RenewLease:      ofAccount(otherID, "Other"),
	audit.EndLease:        ofAccount(6, "Delete"),
	audit.PutCredential:   ofEntity(3, "Update", "Stored credential"),
	audit.ReadCredential:  ofEntity(2, "Read", "Stored credential"),
	audit.RotateStored:    ofEntity(3, "Update", "Stored credential"),
	audit.DropCredential:  ofEntity(4, "Delete", "Stored credential"),
	audit.CreateDatabase:  ofEntity(1, "Create", "Database"),
	audit.DeleteDatabase:  ofEntity(4, "Delete", "Database"),
	audit.MakeAccessRoles: ofEntity(3, "Update", "Database"),
	audit.DropAccessRoles: ofEntity(3, "Update", "Database"),
	audit.CreateAccount:   ofAccount(1, "Create"),
	audit.ResetAccount:    ofAccount(4, "Password Reset"),
	audit.UpdateAccount:   ofAccount(otherID, "Other"),
	audit.DeleteAccount:   ofAccount(6, "Delete"),
	audit.OffboardAccount: ofAccount(5, "Disable"),
	audit.ChangeSecret:    ofAccount(3, "Password Change"),
	audit.GrantScope:      {userAccess, 1, "Assign Privileges", ""},
	audit.RevokeScope:     {userAccess, 2, "Revoke Privileges", ""},
	audit.RevokeTokens:    ofAccount(otherID, "Other"),
	audit.CreateToken:     ofEntity(1, "Create", "Token"),
	audit.RevokeToken:     ofEntity(4, "Delete", "Token"),
	audit.ApproveLogin:    {authentication, otherID, "Other", ""},
	audit.DenyLogin:       {authentication, otherID, "Other", ""},
	audit.CreateLogin:     {authentication, 1, "Logon", ""},
	audit.EndSession:      {authentication, 2, "Logoff", ""},
	audit.RegisterCluster: ofEntity(1, "Create", "Cluster"),
	audit.UpdateCluster:   ofEntity(3, "Update", "Cluster"),
	audit.RemoveCluster:   ofEntity(4, "Delete", "Cluster"),
	audit.RotateCluster:   ofEntity(3, "Update", "Cluster"),
	audit.MakeSigningKey:  ofEntity(1, "Create", "Key"),
	audit.RetireKey:       ofEntity(4, "Delete", "Key"),
	audit.RotateKeys:      ofEntity(3, "Update", "Key"),
	audit.StartOperation:  ofEntity(1, "Create", "Operation"),
	audit.CancelOperation: ofEntity(3, "Update", "Operation"),
	audit.CreateWebhook:   ofEntity(1, "Create", "Webhook"),
	audit.UpdateWebhook:   ofEntity(3, "Update", "Webhook"),
	audit.DeleteWebhook:   ofEntity(4, "Delete", "Webhook"),
	audit.ReplayWebhook:   ofEntity(3, "Update", "Webhook"),
	audit.RotateWebhook:   ofEntity(3, "Update", "Webhook"),
	audit.Restore:         ofEntity(3, "Update", "Control database"),
}

// The objects of the schema, as far as they are used.
type (
	ocsfEvent struct {
		ActivityID   int           `json:"activity_id"`
		ActivityName string        `json:"activity_name"`
		CategoryUID  int           `json:"category_uid"`
		CategoryName string        `json:"category_name"`
		ClassUID     int           `json:"class_uid"`
		ClassName    string        `json:"class_name"`
		TypeUID      int           `json:"type_uid"`
		TypeName     string        `json:"type_name"`
		Time         int64         `json:"time"` // milliseconds since 1970
		SeverityID   int           `json:"severity_id"`
		Severity     string        `json:"severity"`
		StatusID     int           `json:"status_id"`
		Status       string        `json:"status"`
		StatusDetail string        `json:"status_detail,omitempty"`
		Message      string        `json:"message"`
		Metadata     ocsfMetadata  `json:"metadata"`
		Actor        *ocsfActor    `json:"actor,omitempty"`
		Source       *ocsfEndpoint `json:"src_endpoint,omitempty"`
		User         *ocsfUser     `json:"user,omitempty"`
		Entity       *ocsfEntity   `json:"entity,omitempty"`
		Privileges   []string      `json:"privileges,omitempty"`
		Service      *ocsfService  `json:"service,omitempty"`
		// Unmapped is the event as an export in JSON has it.
		Unmapped any `json:"unmapped"`
	}
	ocsfMetadata struct {
		Version        string      `json:"version"`
		Product        ocsfProduct `json:"product"`
		UID            string      `json:"uid,omitempty"`
		CorrelationUID string      `json:"correlation_uid,omitempty"`
		Sequence       int64       `json:"sequence"`
		EventCode      string      `json:"event_code"`
		LogName        string      `json:"log_name"`
	}
	ocsfProduct struct {
		Name    string `json:"name"`
		Vendor  string `json:"vendor_name"`
		Version string `json:"version,omitempty"`
	}
	ocsfActor struct {
		User ocsfUser `json:"user"`
	}
	ocsfUser struct {
		Name string `json:"name,omitempty"`
		UID  string `json:"uid,omitempty"`
	}
	ocsfEntity struct {
		Name string `json:"name,omitempty"`
		Type string `json:"type"`
		UID  string `json:"uid,omitempty"`
	}
	ocsfEndpoint struct {
		IP string `json:"ip"`
	}
	ocsfService struct {
		Name string `json:"name"`
	}
)

// ocsfOf maps an event to the schema.
func ocsfOf(e *Event, version string) *ocsfEvent {
	activity, known := ocsfActivities[e.Type]
	if !known {
		activity = ocsfActivity{baseEvent, otherID, "Other", ""}
	}
	o := &ocsfEvent{
		ActivityID:   activity.id,
		ActivityName: activity.name,
		CategoryUID:  activity.class.uid / 1000,
		CategoryName: "Identity & Access Management",
		ClassUID:     activity.class.uid,
		ClassName:    activity.class.name,
		TypeUID:      activity.class.uid*100 + activity.id,
		TypeName:     activity.class.name + ": " + activity.name,
		Time:         e.Time.UnixMilli(),
		SeverityID:   1,
		Severity:     "Informational",
		Message:      e.Type,
		Metadata: ocsfMetadata{
			Version:   ocsfVersion,
			Product:   ocsfProduct{"Rolecall", "Rolecall", version},
			Sequence:  e.Behind.Seq,
			EventCode: e.Type,
			LogName:   "audit",
		},
		Unmapped: e.line(),
	}
	if activity.class == baseEvent {
		o.CategoryName = "Uncategorized"
	}
	if e.Row == nil {
		o.SeverityID, o.Severity, o.Message = 3, "Medium", e.Notice.Message
		o.StatusID, o.Status = otherID, "Other"
		return o
	}
	o.ofRow(e.Row, activity)
	return o
}

// ofRow adds what a row of the log has.
func (o *ocsfEvent) ofRow(r *audit.Row, activity ocsfActivity) {
	o.Metadata.UID, o.Metadata.CorrelationUID = r.Attempt.String()+"/"+r.Phase, r.Attempt.String()
	o.Actor = &ocsfActor{ocsfUser{r.AccountName, r.AccountGUID}}
	if r.Address != "" {
		o.Source = &ocsfEndpoint{r.Address}
	}
	o.Message = r.Action + " " + r.Target + ": " + cmp.Or(string(r.Outcome), "attempted")
	switch r.Outcome {
	case audit.Done:
		o.StatusID, o.Status = 1, "Success"
	case audit.NotDone:
		o.StatusID, o.Status = 2, "Failure"
	case audit.Denied:
		o.StatusID, o.Status, o.SeverityID, o.Severity = 2, "Failure", 3, "Medium"
	case audit.Unknown:
		o.StatusID, o.Status, o.SeverityID, o.Severity = 0, "Unknown", 3, "Medium"
	default: // an attempt, whose outcome follows
		o.StatusID, o.Status = otherID, "Attempted"
	}
	o.StatusDetail = string(r.Outcome)
	switch activity.class {
	case entityManagement:
		o.Entity = &ocsfEntity{Name: r.Target, Type: activity.entity}
	case authentication:
		o.User, o.Service = &ocsfUser{r.AccountName, r.AccountGUID}, &ocsfService{"Rolecall"}
	case userAccess:
		o.User, o.Privileges = &ocsfUser{Name: r.Target}, []string{r.Action}
	case accountChange:
		o.User = &ocsfUser{Name: r.Target}
	}
}
