"use strict";

fetch("/docs/documents.json")
  .then((response) => response.json())
  .then((documents) => {
    // The bar at the top chooses among several documents, and is what loads the chosen one. With one document there is
    // nothing to choose: it goes, and the document is named instead.
    const one = documents.length === 1;
    SwaggerUIBundle({
      ...(one ? { url: documents[0].url } : { urls: documents }),
      dom_id: "#swagger-ui",
      deepLinking: true,
      presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
      plugins: one ? [() => ({ components: { Topbar: () => null } })] : [],
      layout: "StandaloneLayout",
      defaultModelsExpandDepth: 0,
      validatorUrl: null, // else the document would be sent to a public validator
    });
  });
