import { checkKVCacheType } from '../../../models/quantization/precision.js'
import { type AllOptions, type GenerateOptions, isAssisted, isSampling, rejectOption } from '../generation-options.js'
import { watermarkProblem } from '../watermark/watermarking-config.js'
import { type NumberOption, optionRanges, type Range, share, tokenIdRange } from './option-ranges.js'
import { checkRefused } from './refused-options.js'

const idLists = ['eosTokenIds', 'suppressTokens', 'beginSuppressTokens', 'forcedTokens', 'forcedEosTokenIds'] as const

const checkVisualDelta = ({ visualDelta: delta, imageTokenId, maxPositionEmbeddings }: GenerateOptions): void => {
  if (delta === undefined) return
  if (delta !== 'auto' && !(typeof delta === 'number' && share.holds(delta)))
    rejectOption('visualDelta', `${share.description}, or 'auto'`, delta)
  if (imageTokenId === undefined) rejectOption('imageTokenId', 'a token id if visualDelta is given', imageTokenId)
  if (delta === 'auto' && maxPositionEmbeddings === undefined)
    rejectOption('maxPositionEmbeddings', "a number if visualDelta is 'auto'", maxPositionEmbeddings)
}

/** Candidate tokens are checked for one row: neither beams nor several sequences. */
const checkAssistance = (o: GenerateOptions): void => {
  if (!isAssisted(o)) return
  const name = o.assistantModel ? 'assistantModel' : 'promptLookupNumTokens'
  const clash = (other: keyof AllOptions) => {
    throw new RangeError(
      `${name}: cannot be used with ${other}${typeof o[other] === 'number' ? ` ${o[other]}` : ''}; leave one of the two out`
    )
  }
  if (o.assistantModel && typeof o.assistantModel.model !== 'function')
    rejectOption('assistantModel', 'a loaded checkpoint, or { model }', typeof o.assistantModel)
  if (o.assistantModel && o.promptLookupNumTokens !== undefined) clash('promptLookupNumTokens')
  if ((o.numBeams ?? 1) > 1) clash('numBeams')
  if ((o.numReturnSequences ?? 1) > 1) clash('numReturnSequences')
}

/** Whether a value is a list whose elements all pass a check; callers without types may give anything. */
const isListOf = (value: unknown, holds: (element: unknown) => boolean): boolean => Array.isArray(value) && value.every(holds)
const isTokenId = (id: unknown): boolean => typeof id === 'number' && tokenIdRange.holds(id)
const isSequence = (ids: unknown): boolean => isListOf(ids, isTokenId) && (ids as readonly number[]).length > 0
const isBias = (pair: unknown): boolean =>
  Array.isArray(pair) && isSequence(pair[0]) && typeof pair[1] === 'number' && !Number.isNaN(pair[1])

/** Names of the options that are lists, with the check of an element and the description of a valid list. */
const listOptions = {
  badWords: [isSequence, 'non-empty lists of token ids'],
  badWordsIds: [isSequence, 'non-empty lists of token ids'],
  sequenceBias: [isBias, 'a list of pairs of a non-empty list of token ids and a number'],
  stopStrings: [(text) => typeof text === 'string' && text !== '', 'a list of non-empty strings'],
  logitsProcessors: [(f) => typeof f === 'function', 'a list of functions'],
  stoppingConditions: [(f) => typeof f === 'function', 'a list of functions']
} as const satisfies { readonly [K in keyof AllOptions]?: readonly [holds: (element: unknown) => boolean, description: string] }

const checkLists = (o: GenerateOptions): void => {
  for (const name of idLists)
    if (o[name] !== undefined && !isListOf(o[name], isTokenId)) rejectOption(name, 'a list of token ids', o[name])
  for (const [name, [holds, description]] of Object.entries(listOptions) as [
    keyof typeof listOptions,
    (typeof listOptions)['badWords']
  ][])
    if (o[name] !== undefined && !isListOf(o[name], holds)) rejectOption(name, description, o[name])
}

const cacheImplementations = ['dynamic', 'static', 'quantized'] as const

const checkCacheImplementation = ({ cacheImplementation: implementation, kvCache }: GenerateOptions): void => {
  if (implementation === undefined) return
  if (!cacheImplementations.includes(implementation))
    rejectOption('cacheImplementation', cacheImplementations.map((name) => `'${name}'`).join(', '), implementation)
  if (implementation === 'quantized' && kvCache !== undefined && kvCache !== 'int8')
    rejectOption('kvCache', "'int8' with cacheImplementation 'quantized'", kvCache)
}

const checkGuidance = (o: GenerateOptions): void => {
  const { negativePromptIds: ids, guidanceScale = 1 } = o
  if (ids !== undefined) {
    if (guidanceScale === 1)
      rejectOption('guidanceScale', 'a number other than 1 if negativePromptIds are given', o.guidanceScale)
    if (!isSequence(ids) && !(isListOf(ids, isSequence) && ids.length > 0))
      rejectOption('negativePromptIds', 'a non-empty list of token ids, or one for each row', ids)
  }
  if (guidanceScale === 1) return
  const other = (o.numBeams ?? 1) > 1 ? 'numBeams' : o.assistantModel ? 'assistantModel' : o.promptLookupNumTokens ? 'promptLookupNumTokens' : undefined // biome-ignore format: one line
  if (other) throw new RangeError(`guidanceScale: cannot be used with ${other}; leave one of the two out`)
}

/** Throws a `RangeError` that names the first option with an invalid value. */
export const checkOptions = (o: GenerateOptions): void => {
  for (const [name, range] of Object.entries(optionRanges) as [NumberOption, Range][]) {
    const value = o[name]
    if (value !== undefined && !(typeof value === 'number' && range.holds(value))) rejectOption(name, range.description, value)
  }
  checkLists(o)
  checkKVCacheType(o.kvCache)
  if (![o.seed ?? 0].flat().every(Number.isSafeInteger)) rejectOption('seed', 'an integer, or a list of integers', o.seed)
  if (![undefined, true, false, 'never'].includes(o.earlyStopping))
    rejectOption('earlyStopping', "true, false or 'never'", o.earlyStopping)
  if (o.pause !== undefined && typeof o.pause !== 'function') rejectOption('pause', 'a function', o.pause)
  if (o.topLogprobs && (o.numBeams ?? 1) > 1) rejectOption('topLogprobs', 'no value with numBeams above 1', o.topLogprobs)
  if (![undefined, true, false].includes(o.flash)) rejectOption('flash', 'true or false', o.flash)
  const decay: unknown = o.exponentialDecayLengthPenalty
  if (
    decay !== undefined &&
    !(Array.isArray(decay) && decay.length === 2 && decay.every(Number.isFinite) && decay[0] >= 0 && decay[1] > 0)
  )
    rejectOption('exponentialDecayLengthPenalty', 'a pair of a number of tokens and a factor above 0', decay)
  for (const name of ['outputScores', 'outputLogits', 'outputHiddenStates'] as const)
    if (![undefined, true, false].includes(o[name])) rejectOption(name, 'true or false', o[name])
  if (![undefined, true, false].includes(o.outputAttentions as boolean) && !isListOf(o.outputAttentions, Number.isSafeInteger))
    rejectOption('outputAttentions', 'true, false, or a list of layers', o.outputAttentions)
  if (o.watermarkingConfig !== undefined) {
    const problem = watermarkProblem(o.watermarkingConfig)
    if (problem !== undefined) throw new RangeError(`watermarkingConfig: ${problem}`)
  }
  checkCacheImplementation(o)
  checkGuidance(o)
  checkRefused(o)
  if (o.tokenHealing && !o.tokenizer) rejectOption('tokenizer', 'the tokenizer of the model if tokenHealing is set', o.tokenizer)
  checkVisualDelta(o)
  checkAssistance(o)
  if (o.stopStrings?.length && !o.decode) rejectOption('decode', 'a function if stopStrings are given', o.decode)
  const [beams, answers] = [o.numBeams ?? 1, o.numReturnSequences ?? 1]
  if (answers > beams && !(beams === 1 && isSampling(o)))
    rejectOption('numReturnSequences', `at most numBeams (${beams}), or doSample with numBeams 1`, answers)
}
