// Verifies access tokens as a third-party service does: node verify.mjs JWKS-URL TOKEN…
// Prints a JSON list: for each token its claims, or the code it was refused with.
import { createRemoteJWKSet, jwtVerify } from "jose";

const [url, ...tokens] = process.argv.slice(2);
const keys = createRemoteJWKSet(new URL(url));
const rules = {
  algorithms: ["ES256"],
  issuer: "cimiento",
  audience: "cimiento-api",
  typ: "JWT",
  requiredClaims: ["sub", "sid", "jti", "iat", "exp"],
};

const found = [];
for (const token of tokens) {
  try {
    found.push((await jwtVerify(token, keys, rules)).payload);
  } catch (error) {
    found.push(error.code);
  }
}
console.log(JSON.stringify(found));
