"use strict";
// Swagger UI takes a requirement without schemes (`{}`, login optional) for one that is met, and
// shows such an operation as locked before any login. Judge it by the other requirements.
const optionalLogin = {
  statePlugins: {
    auth: {
      wrapSelectors: {
        isAuthorized: (isAuthorized) => (state, security) =>
          isAuthorized(security && security.filter((requirement) => requirement.size > 0)),
      },
    },
  },
};
// In a file of its own, so that the content security policy can forbid inline scripts.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayOperationId: true,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
  plugins: [optionalLogin],
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
  layout: "BaseLayout",
});
