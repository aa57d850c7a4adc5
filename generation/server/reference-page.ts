/** The parts of an OpenAPI document that the page shows. */
interface Schema {
  readonly $ref?: string
  readonly type?: string | readonly string[]
  readonly description?: string
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
  readonly oneOf?: readonly Schema[]
  readonly minimum?: number
  readonly maximum?: number
}

interface Operation {
  readonly summary?: string
  readonly requestBody?: { readonly content?: Readonly<Record<string, { readonly schema?: Schema }>> }
}

/** An OpenAPI document. */
export interface ApiDocument {
  readonly info: { readonly title: string; readonly version: string; readonly description?: string }
  readonly paths?: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components?: { readonly schemas?: Readonly<Record<string, Schema>> }
}

const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)

/** A type in a few words: `string | (text | image_url)[]`. */
const typeText = (schema: Schema, depth = 0): string => {
  const alternatives = schema.anyOf ?? schema.oneOf
  if (alternatives) return [...new Set(alternatives.map((inner) => typeText(inner, depth)))].join(' | ')
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ')
  if (schema.const !== undefined) return JSON.stringify(schema.const)
  if (schema.type === 'array') return `(${typeText(schema.items ?? {}, depth)})[]`
  if (schema.properties && depth < 3) {
    const fields = Object.entries(schema.properties).map(([name, inner]) => {
      return `${name}${schema.required?.includes(name) ? '' : '?'}: ${typeText(inner, depth + 1)}`
    })
    return `{ ${fields.join(', ')} }`
  }
  return [schema.type ?? 'any'].flat().join(' | ')
}

const rangeText = ({ minimum, maximum, anyOf }: Schema): string => {
  if (minimum === undefined && maximum === undefined) return anyOf?.map(rangeText).find((text) => text !== '') ?? ''
  return `${minimum ?? ''} to ${maximum ?? ''}`
}

const fieldRow = (name: string, schema: Schema, isRequired: boolean): string =>
  `<tr><td><code>${escapeHtml(name)}</code>${isRequired ? ' (required)' : ''}</td><td><code>${escapeHtml(typeText(schema))}</code></td><td>${escapeHtml(
    [schema.description, rangeText(schema)].filter(Boolean).join(' ')
  )}</td></tr>`

const operationSection = (document: ApiDocument, path: string, method: string, operation: Operation): string => {
  const body = operation.requestBody?.content?.['application/json']?.schema
  const schema = body?.$ref ? document.components?.schemas?.[body.$ref.split('/').at(-1)!] : body
  const rows = Object.entries(schema?.properties ?? {}).map(([name, field]) =>
    fieldRow(name, field, schema?.required?.includes(name) === true)
  )
  const table =
    rows.length === 0
      ? ''
      : `<table><thead><tr><th>Field</th><th>Type</th><th></th></tr></thead><tbody>${rows.join('')}</tbody></table>`
  return `<section><h2><code>${method.toUpperCase()} ${escapeHtml(path)}</code></h2><p>${escapeHtml(operation.summary ?? '')}</p>${table}</section>`
}

/** A page of an API's routes and their fields, without scripts. */
export const referencePage = (document: ApiDocument): string => {
  const sections = Object.entries(document.paths ?? {}).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => operationSection(document, path, method, operation))
  )
  const { title, version, description = '' } = document.info
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)}</title><style>
:root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto } td, th { text-align: left; vertical-align: top; padding: .3rem .6rem; border-top: 1px solid #8886 }
code { overflow-wrap: anywhere } h2 { margin-top: 2.5rem; font-size: 1.1rem }
</style></head><body><h1>${escapeHtml(title)} ${escapeHtml(version)}</h1><p>${escapeHtml(description)}</p>
<p>The same as data: <a href="/openapi.json">/openapi.json</a></p>${sections.join('\n')}</body></html>`
}
