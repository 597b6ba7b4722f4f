module rolecall/e2e

go 1.26.0

require github.com/ionos-cloud/sdk-go-dbaas-postgres v1.1.2

require (
	github.com/cloudfoundry-community/go-uaa v0.3.3 // indirect
	github.com/cloudfoundry/go-cfclient/v3 v3.0.0-alpha.12 // indirect
	github.com/golang/protobuf v1.5.2 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/zitadel/oidc/v3 v3.45.0 // indirect
	golang.org/x/net v0.57.0 // indirect
	golang.org/x/oauth2 v0.31.0 // indirect
	google.golang.org/appengine v1.6.7 // indirect
	google.golang.org/protobuf v1.36.12-0.20260120151049-f2248ac996af // indirect
	k8s.io/apimachinery v0.37.2 // indirect
)
