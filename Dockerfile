# The operator's image: the manager and the components that it runs beside servers, as static
# binaries; no shell, no package, no root.
FROM golang:1.27.3 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY cmd cmd
COPY controllers controllers
COPY internal internal
COPY hack/build.sh hack/go-version hack/
ARG VERSION=dev
RUN VERSION=$VERSION hack/build.sh /out/ ./cmd/manager ./cmd/egress-proxy ./cmd/probe ./cmd/gateway

FROM scratch
COPY --from=build /out/ /
USER 65532:65532
ENTRYPOINT ["/manager"]
