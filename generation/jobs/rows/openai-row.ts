import * as E from 'fp-ts/lib/Either.js'
import { type Issues, invalid, issue } from '../../../lib/error.js'
import { isRecord } from '../../../lib/plain-object.js'
import type { EngineInfo, RequestOptions } from '../../engine/engine-types.js'
import { toRequestOptions } from '../../server/protocol/chat-options.js'
import { type ChatRequest, chatRequest } from '../../server/protocol/chat-request.js'
import { toCompletion } from '../../server/protocol/chat-response.js'
import { toMessages } from '../../server/protocol/request-messages.js'
import { toolsOf } from '../../server/protocol/tools/tool-choice.js'
import { answerParser } from '../../server/protocol/tools/tool-syntax.js'
import { modelNameOf, unixSeconds } from '../../server/server-context.js'
import { schemaError } from '../../server/server-errors.js'
import type { RowRequest } from './row-record.js'

type Json = Readonly<Record<string, unknown>>

/** The endpoint of OpenAI's batch files that is answered. */
const CHAT = '/v1/chat/completions'

/** Whether a row is a line of OpenAI's batch file: `{"custom_id", "method", "url", "body"}`. */
export const isOpenAIRow = ({ custom_id: id, url, body }: Json): boolean =>
  id !== undefined && url !== undefined && isRecord(body)

export interface OpenAIContext {
  readonly row: number
  readonly where: string
  readonly options: RequestOptions
  readonly info: EngineInfo
}

const toRowRequest = (chat: ChatRequest, { row, options, info }: OpenAIContext): RowRequest => {
  const names = toolsOf(chat, info).map((tool) => tool.function.name)
  const asked = toRequestOptions(chat, info)
  const toBody: RowRequest['toBody'] = (result) => {
    const head = { id: `chatcmpl-${row}`, created: unixSeconds(), model: chat.model ?? modelNameOf(info) }
    const choices = chat.logprobs ? result.choices : result.choices.map(({ logprobs: _, topLogprobs: __, ...choice }) => choice)
    return toCompletion(head, { ...result, choices }, () => answerParser(info.chatTemplate, names))
  }
  return {
    request: {
      messages: toMessages(chat.messages),
      options: { ...options, ...asked, outputLogprobs: true }
    },
    toBody
  }
}

/** The request of a line of OpenAI's batch file. Issues name the line and the wrong field. */
export const openAIRequest = ({ method = 'POST', url, body }: Json, context: OpenAIContext): E.Either<Issues, RowRequest> => {
  const { where } = context
  if (url !== CHAT) return invalid('BatchRow', `${where}: url: only ${CHAT} is answered, got ${JSON.stringify(url)}`)
  if (method !== 'POST') return invalid('BatchRow', `${where}: method: expected POST, got ${JSON.stringify(method)}`)
  const parsed = chatRequest.safeParse(body)
  if (!parsed.success) return invalid('BatchRow', `${where}: body.${schemaError(parsed.error.issues).message}`)
  return E.tryCatch(
    () => toRowRequest(parsed.data, context),
    (error): Issues => [issue('BatchRow', `${where}: body.${(error as Error).message}`)]
  )
}
