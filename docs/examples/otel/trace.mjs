// A service that knows OpenTelemetry only: node trace.mjs http://localhost:4318/v1/traces
import { SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";

const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ "service.name": "checkout", "tenant.id": "acme" }),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url: process.argv[2] }))],
});
provider.register();
const tracer = provider.getTracer("example");
tracer.startActiveSpan("POST /orders", { kind: SpanKind.SERVER }, (order) => {
  tracer.startActiveSpan("charge", (charge) => {
    charge.recordException(new TypeError("card declined"));
    charge.setStatus({ code: SpanStatusCode.ERROR });
    charge.end();
  });
  order.end();
});
await provider.shutdown();
