export { RepriseError, type ErrorCode } from "./errors.ts";
