package api

import (
	"net/http"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// shape of a route: which bounds hold for it.
type shape uint8

const (
	single shape = iota // one request, one answer
	view                // counted and ended with the server; its receiver must take something now and then
	stream              // a stream of a subscriber: ended with the server
)

// route is a path with what it asks of its caller. Nothing is served that is not in routes.
type route struct {
	path  string // as http.ServeMux writes it, without the method
	need  need
	shape shape
	rpc   bool
	// clients are of an API that is not ours: they POST what they only ask, and may send the token as a password.
	clients bool
	serve   func(*Server) http.Handler // of what is no rpc; nil result: not served
}

const (
	reflectV1      = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	reflectV1Alpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
)

var routes = []route{
	{path: leatv1connect.AdminServiceStatusProcedure, need: needRead, rpc: true},
	// Plan reads a file with the variables of the server, so whoever may send one can ask for their values.
	{path: leatv1connect.AdminServicePlanProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceApplyProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServicePauseProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceResumeProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceSeekProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceParkedProcedure, need: needRead, rpc: true},
	{path: leatv1connect.AdminServiceRemoveSourceProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceRedriveProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceDiscardProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceAuditLogProcedure, need: needRead, rpc: true},
	{path: leatv1connect.AdminServiceExplainProcedure, need: needRead, rpc: true},
	{path: leatv1connect.AdminServiceThrottleProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceRangesProcedure, need: needRead, rpc: true},
	{path: leatv1connect.AdminServiceSplitRangeProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceMergeRangesProcedure, need: needOperate, rpc: true},
	// A dry run reads the window: it is for those who may begin it.
	{path: leatv1connect.AdminServiceReplayProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceBackfillProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceJobsProcedure, need: needRead, rpc: true},
	{path: leatv1connect.AdminServicePauseJobProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceResumeJobProcedure, need: needOperate, rpc: true},
	{path: leatv1connect.AdminServiceCancelJobProcedure, need: needOperate, rpc: true},
	// It reads tables and writes watermarks.
	{path: leatv1connect.AdminServiceVerifyProcedure, need: needOperate, shape: view, rpc: true},
	{path: leatv1connect.AdminServiceTailProcedure, need: needRead, shape: view, rpc: true},

	{path: leatv1connect.SubscriberServicePullProcedure, need: needSubscribe, shape: stream, rpc: true},
	// Receive waits for events, so it ends with the server as a stream does.
	{path: leatv1connect.SubscriberServiceReceiveProcedure, need: needSubscribe, shape: stream, rpc: true},
	{path: leatv1connect.SubscriberServiceAckProcedure, need: needSubscribe, rpc: true},
	{path: leatv1connect.SubscriberServiceExtendProcedure, need: needSubscribe, rpc: true},
	{path: leatv1connect.SubscriberServiceFetchProcedure, need: needSubscribe, rpc: true},

	{path: reflectV1, need: needToken, shape: stream, rpc: true},
	{path: reflectV1Alpha, need: needToken, shape: stream, rpc: true},

	{path: "/v1/subscriptions/{name}/events", need: needView, shape: view, serve: func(s *Server) http.Handler { return http.HandlerFunc(s.events) }},
	{path: "/v1/subscriptions/{name}/types.ts", need: needView, serve: func(s *Server) http.Handler { return http.HandlerFunc(s.types) }},
	{path: "/schemas/{source}/{table}/{version}", need: needToken, serve: func(s *Server) http.Handler { return http.HandlerFunc(s.schema) }},
	{path: "/registry/", need: needToken, clients: true, serve: func(s *Server) http.Handler { return s.o.Registry }},
	{path: "/metrics", need: needRead, serve: func(s *Server) http.Handler { return s.o.Metrics }},
	{path: "/healthz", need: needNothing, serve: func(*Server) http.Handler { return http.HandlerFunc(healthz) }},
	{path: "/readyz", need: needNothing, serve: func(s *Server) http.Handler { return http.HandlerFunc(s.readyz) }},
	// What is not there is told only to those who have a token.
	{path: "/", need: needToken, serve: func(*Server) http.Handler { return http.NotFoundHandler() }},
}
