# The image for people who build from source: docker build -t rolecall .
# A release has an image with the same contents, which make image writes without an engine: the same commit, the same bytes.

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN git config --global --add safe.directory /src && make build
RUN echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >/passwd && echo 'nonroot:x:65532:' >/group

FROM scratch
COPY --from=build /passwd /group /etc/
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/bin/rolecall /usr/bin/rolecall
COPY LICENSE /usr/share/doc/rolecall/
USER 65532:65532
# In a container a listener on loopback has no clients.
ENV PATH=/usr/bin ROLECALL_LISTEN=0.0.0.0:8080 ROLECALL_METRICS_LISTEN=0.0.0.0:9180
EXPOSE 8080 9180
ENTRYPOINT ["/usr/bin/rolecall"]
CMD ["serve"]
