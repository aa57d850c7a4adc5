// Starts engine-process.ts in a checkout, because a process does not inherit the hooks with which its parent reads TypeScript.
import { tsImport } from 'tsx/esm/api'

await tsImport('./engine-process.ts', import.meta.url)
